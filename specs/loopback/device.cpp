// A device whose memory is the host's: PyTorch's key for out-of-tree devices (PrivateUse1), with an allocator, a guard
// and streams of its own, views that share memory, copies from and to the CPU, and a fallback to the CPU for the rest.
//
// It is written against PyTorch's public headers from 2.1 to 2.15. Methods that only some of these releases have are
// declared without `override`.
#include <ATen/ATen.h>
#include <ATen/EmptyTensor.h>
#include <ATen/autocast_mode.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <c10/core/Allocator.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <c10/core/impl/alloc_cpu.h>
#include <torch/library.h>
#include <torch/version.h>

#include <array>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <optional>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#define TORCH_AT_LEAST(major, minor) \
  (TORCH_VERSION_MAJOR > major || (TORCH_VERSION_MAJOR == major && TORCH_VERSION_MINOR >= minor))


namespace {

using at::IntArrayRef;
using at::Tensor;
using c10::Device;
using c10::DeviceIndex;
using c10::Stream;

#if TORCH_AT_LEAST(2, 4)
template <class T>
using Optional = std::optional<T>;
#else
template <class T>
using Optional = c10::optional<T>;
#endif

constexpr auto kKind = c10::DeviceType::PrivateUse1;
constexpr DeviceIndex kCount = 2;

// ---- Devices and streams: which one is current is a thread's own affair. Work is done when a call returns, so events
// ---- and synchronization have nothing to wait for.

thread_local DeviceIndex current_device = 0;
thread_local std::array<c10::StreamId, kCount> current_stream{};
std::atomic<c10::StreamId> streams_made{0};

struct Guard final : c10::impl::DeviceGuardImplInterface {
  c10::DeviceType type() const final { return kKind; }
  DeviceIndex deviceCount() const noexcept final { return kCount; }

  Device getDevice() const final { return Device(kKind, current_device); }
  void setDevice(Device device) const final {
    TORCH_CHECK(device.type() == kKind, "not a device of this kind: ", device);
    TORCH_CHECK(device.index() < kCount, "invalid device index ", int(device.index()), ": there are ", int(kCount));
    uncheckedSetDevice(device);
  }
  void uncheckedSetDevice(Device device) const noexcept final {
    if (device.index() >= 0) current_device = device.index();
  }
  Device exchangeDevice(Device device) const final {
    const Device old = getDevice();
    setDevice(device);
    return old;
  }

  Stream getStream(Device device) const noexcept final {
    return Stream(Stream::UNSAFE, known(device), current_stream[known(device).index()]);
  }
  Stream getDefaultStream(Device device) const final { return Stream(Stream::DEFAULT, known(device)); }
  Stream getStreamFromGlobalPool(Device device, bool) const final { return getNewStream(device, 0); }
  Stream getNewStream(Device device, int) const { return Stream(Stream::UNSAFE, known(device), ++streams_made); }
  Stream exchangeStream(Stream stream) const noexcept final {
    const Stream old = getStream(stream.device());
    current_stream[stream.device_index()] = stream.id();
    return old;
  }
  bool queryStream(const Stream&) const { return true; }
  void synchronizeStream(const Stream&) const {}
  void synchronizeDevice(const DeviceIndex) const {}
  void recordDataPtrOnStream(const c10::DataPtr&, const Stream&) const {}

  void record(void** event, const Stream&, const DeviceIndex, const c10::EventFlag) const final {
    if (!*event) *event = new char;
  }
  void destroyEvent(void* event, const DeviceIndex) const noexcept final { delete static_cast<char*>(event); }
  void block(void*, const Stream&) const final {}
  bool queryEvent(void*) const final { return true; }
  void synchronizeEvent(void*) const {}

 private:
  static Device known(Device device) { return device.has_index() ? device : Device(kKind, current_device); }
};
C10_REGISTER_GUARD_IMPL(PrivateUse1, Guard);

// ---- Memory

struct Allocator final : c10::Allocator {
  c10::DataPtr allocate(size_t bytes) const { return memory(bytes); }  // until 2.2
  c10::DataPtr allocate(size_t bytes) { return memory(bytes); }        // since 2.3
  c10::DeleterFnPtr raw_deleter() const final { return &c10::free_cpu; }
  void copy_data(void* to, const void* from, size_t bytes) const { std::memcpy(to, from, bytes); }

 private:
  static c10::DataPtr memory(size_t bytes) {
    void* start = c10::alloc_cpu(bytes);
    return {start, start, &c10::free_cpu, Device(kKind, current_device)};
  }
};
Allocator allocator;
REGISTER_ALLOCATOR(kKind, &allocator);

// Pinned memory is host memory like all other; which of it was asked for as pinned is remembered.
std::mutex pinned_mutex;
std::set<const void*> pinned;

void unpin(void* start) {
  {
    std::lock_guard<std::mutex> lock(pinned_mutex);
    pinned.erase(start);
  }
  c10::free_cpu(start);
}

struct PinnedAllocator final : c10::Allocator {
  c10::DataPtr allocate(size_t bytes) const { return memory(bytes); }
  c10::DataPtr allocate(size_t bytes) { return memory(bytes); }
  c10::DeleterFnPtr raw_deleter() const final { return &unpin; }
  void copy_data(void* to, const void* from, size_t bytes) const { std::memcpy(to, from, bytes); }

 private:
  static c10::DataPtr memory(size_t bytes) {
    void* start = c10::alloc_cpu(bytes);
    std::lock_guard<std::mutex> lock(pinned_mutex);
    if (start) pinned.insert(start);  // there is none for a tensor without elements
    return {start, start, &unpin, Device(c10::kCPU)};
  }
};
PinnedAllocator pinned_allocator;

void resize_storage(c10::StorageImpl& storage, size_t bytes) {
  c10::DeviceGuard guard(storage.device());
  c10::DataPtr memory = allocator.allocate(bytes);
  std::memcpy(memory.get(), storage.data_ptr().get(), std::min(bytes, storage.nbytes()));
  storage.set_data_ptr_noswap(std::move(memory));
  storage.set_nbytes(bytes);
}

struct Hooks final : at::PrivateUse1HooksInterface {
  bool isBuilt() const { return true; }
  bool isAvailable() const { return true; }
  void init() const {}
  bool hasPrimaryContext(DeviceIndex) const { return true; }
  DeviceIndex deviceCount() const { return kCount; }
  DeviceIndex getCurrentDevice() const { return current_device; }
  void setCurrentDevice(DeviceIndex index) const { Guard().setDevice(Device(kKind, index)); }
  DeviceIndex exchangeDevice(DeviceIndex index) const { return Guard().exchangeDevice(Device(kKind, index)).index(); }
  DeviceIndex maybeExchangeDevice(DeviceIndex index) const { return exchangeDevice(index < 0 ? current_device : index); }
  Device getDeviceFromPtr(void*) const { return Device(kKind, current_device); }
  bool isPinnedPtr(const void* data) const {
    std::lock_guard<std::mutex> lock(pinned_mutex);
    return pinned.count(data) > 0;
  }
  c10::Allocator* getPinnedMemoryAllocator() const { return &pinned_allocator; }
  void resizePrivateUse1Bytes(const c10::Storage& storage, size_t bytes) const {
    resize_storage(*storage.unsafeGetStorageImpl(), bytes);
  }
};
const bool hooks_registered = (at::RegisterPrivateUse1HooksInterface(new Hooks), true);

// ---- What the device lacks: nothing. So that tests can run the suite on a poorer device, AUTOGRAD_LOOPBACK_LACKS takes
// ---- capabilities away when the library is loaded: dtypes and "random", as in "float64,complex128,random".

bool lacks(const std::string& capability) {
  static const std::set<std::string> lacking = [] {
    const char* names = std::getenv("AUTOGRAD_LOOPBACK_LACKS");
    std::istringstream words(names ? names : "");
    std::set<std::string> found;
    for (std::string name; std::getline(words, name, ',');) found.insert(name);
    return found;
  }();
  return lacking.count(capability) > 0;
}

void check_dtype(at::ScalarType dtype) {
  const char* name = dtype == at::kDouble ? "float64" : dtype == at::kFloat ? "float32" : dtype == at::kHalf ? "float16"
      : dtype == at::kBFloat16 ? "bfloat16" : dtype == at::kComplexFloat ? "complex64"
      : dtype == at::kComplexDouble ? "complex128" : "";
  TORCH_CHECK_TYPE(!lacks(name), "this device has no ", name, " (AUTOGRAD_LOOPBACK_LACKS)");
}

// ---- Tensors

constexpr c10::DispatchKeySet kKeys(c10::DispatchKey::PrivateUse1);

Tensor empty(
    IntArrayRef size,
    Optional<at::ScalarType> dtype,
    Optional<at::Layout> layout,
    Optional<Device> device,
    Optional<bool>,
    Optional<at::MemoryFormat> format) {
  TORCH_CHECK(!layout || *layout == at::kStrided, "there are only strided tensors on this device");
  check_dtype(c10::dtype_or_default(dtype));
  c10::DeviceGuard guard(c10::device_or_default(device));
  return at::detail::empty_generic(size, &allocator, kKeys, c10::dtype_or_default(dtype), format);
}

Tensor empty_strided(
    IntArrayRef size,
    IntArrayRef stride,
    Optional<at::ScalarType> dtype,
    Optional<at::Layout>,
    Optional<Device> device,
    Optional<bool>) {
  check_dtype(c10::dtype_or_default(dtype));
  c10::DeviceGuard guard(c10::device_or_default(device));
  return at::detail::empty_strided_generic(size, stride, &allocator, kKeys, c10::dtype_or_default(dtype));
}

// ---- What the CPU does. An argument that is here becomes a CPU tensor over the same memory, and what comes of it, is the
// ---- argument again, a view of it, or new memory, which stays where it is. So strides, overlaps and views are kept.

const c10::DispatchKeySet kFlags({c10::DispatchKey::Conjugate, c10::DispatchKey::Negative, c10::DispatchKey::ZeroTensor});

// A tensor of the form of another one. A view is an inference tensor if its base is one; others are if they are made in
// inference mode.
template <class... View>
Tensor tensor_over(c10::Storage storage, c10::DispatchKeySet keys, const Tensor& form, View... view) {
  keys = (keys - kFlags) | (form.key_set() & kFlags);
  auto t = at::detail::make_tensor<c10::TensorImpl>(view..., std::move(storage), keys, form.dtype());
  t.unsafeGetTensorImpl()->set_storage_offset(form.storage_offset());
  t.unsafeGetTensorImpl()->set_sizes_and_strides(form.sizes(), form.strides());
  return t;
}

class OnCPU {
 public:
  explicit OnCPU(Device device) : device_(device) {}

  Tensor enter(const Tensor& t) {
    if (!t.defined() || t.device().type() != kKind) return t;
    for (const auto& [own, alias] : tensors_)
      if (own.is_same(t)) return alias;
    auto* storage = t.storage().unsafeGetStorageImpl();
    c10::Storage over;
    for (const auto& [own, alias] : storages_)
      if (own.unsafeGetStorageImpl() == storage) over = alias;
    if (!over) {
      auto* start = const_cast<void*>(static_cast<const void*>(storage->data_ptr().get()));
      over = c10::Storage(
          c10::Storage::use_byte_size_t(), storage->nbytes(), {start, c10::kCPU}, c10::GetAllocator(c10::kCPU), true);
      storages_.emplace_back(t.storage(), over);
    }
    tensors_.emplace_back(t, tensor_over(over, c10::DispatchKeySet(c10::DispatchKey::CPU), t));
    return tensors_.back().second;
  }

  Tensor leave(const Tensor& t) {
    if (!t.defined() || t.device().type() == kKind) return t;
    TORCH_CHECK_NOT_IMPLEMENTED(t.layout() == at::kStrided, "there are only strided tensors on this device");
    for (const auto& [own, alias] : tensors_)
      if (alias.is_same(t)) return own;
    check_dtype(t.scalar_type());
    for (const auto& [own, alias] : tensors_)
      if (alias.storage().unsafeGetStorageImpl() == t.storage().unsafeGetStorageImpl())
        return tensor_over(own.storage(), own.key_set(), t, c10::TensorImpl::VIEW);
    for (const auto& [own, alias] : storages_)
      if (alias.unsafeGetStorageImpl() == t.storage().unsafeGetStorageImpl()) return tensor_over(own, kKeys, t);
    auto* kept = new c10::Storage(t.storage());
    auto* start = const_cast<void*>(static_cast<const void*>(kept->data_ptr().get()));
    c10::DataPtr memory(start, kept, [](void* held) { delete static_cast<c10::Storage*>(held); }, device_);
    c10::Storage own(c10::Storage::use_byte_size_t(), kept->nbytes(), std::move(memory), &allocator, true);
    storages_.emplace_back(own, t.storage());
    return tensor_over(own, kKeys, t);
  }

  // Arguments that the CPU made larger or laid out in another way.
  void finish() {
    for (const auto& [own, alias] : storages_) {
      if (alias.nbytes() == own.nbytes()) continue;
      resize_storage(*own.unsafeGetStorageImpl(), alias.nbytes());
      std::memcpy(
          const_cast<void*>(static_cast<const void*>(own.data_ptr().get())), alias.data_ptr().get(), alias.nbytes());
    }
    for (const auto& [own, alias] : tensors_)
      if (own.sizes() != alias.sizes() || own.strides() != alias.strides())
        own.unsafeGetTensorImpl()->set_sizes_and_strides(alias.sizes(), alias.strides());
  }

 private:
  Device device_;
  std::vector<std::pair<Tensor, Tensor>> tensors_;  // each with its alias on the CPU
  std::vector<std::pair<c10::Storage, c10::Storage>> storages_;
};

// The one device of an operation's tensors. A number that is read may come from the CPU, and so may positions.
struct Place {
  Optional<Device> device;

  void meet(const Tensor& t, bool written, bool positions) {
    if (!t.defined() || (t.device().is_cpu() && !written && (positions || t.dim() == 0))) return;
    if (!device) device = t.device();
    TORCH_CHECK(
        *device == t.device(),
        "Expected all tensors to be on the same device, but found at least two devices, ",
        *device, " and ", t.device(), "!");
  }
};

// Calls `each` for every tensor in a value, and puts what it gives in the tensor's place.
template <class Each>
void replace_tensors(at::IValue& value, const Each& each) {
  if (value.isTensor()) {
    value = each(value.toTensor());
  } else if (value.isTensorList()) {
    c10::List<Tensor> list;
    for (const Tensor& t : value.toTensorVector()) list.push_back(each(t));
    value = std::move(list);
  } else if (value.isOptionalTensorList()) {
    c10::List<Optional<Tensor>> list;
    for (const auto& t : value.toOptionalTensorVector()) list.push_back(t ? Optional<Tensor>(each(*t)) : t);
    value = std::move(list);
  }
}

void fallback(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const auto& name = op.operator_name().name;
  const bool indexes = name.rfind("aten::index", 0) == 0 || name == "aten::_index_put_impl_";
  const auto arguments = torch::jit::last(*stack, op.schema().arguments().size());
  const auto first = stack->size() - arguments.size();
  Place place;
  Optional<Device> named;
  for (size_t i = 0; i < arguments.size(); ++i) {
    at::IValue value = arguments[i];
    const auto* alias = op.schema().arguments()[i].alias_info();
    const bool written = alias && alias->isWrite(), positions = indexes && !value.isTensor();
    replace_tensors(value, [&](const Tensor& t) {
      place.meet(t, written, positions);
      return t;
    });
    if (value.isDevice()) named = value.toDevice();
    TORCH_CHECK_NOT_IMPLEMENTED(
        !lacks("random") || op.schema().arguments()[i].name() != "generator",
        "this device has no random numbers (AUTOGRAD_LOOPBACK_LACKS)");
  }

#if !TORCH_AT_LEAST(2, 4)
  std::vector<Tensor> counted;  // a kernel that wrote a list had to count that itself
  for (size_t i = 0; i < arguments.size(); ++i) {
    const auto* alias = op.schema().arguments()[i].alias_info();
    if (arguments[i].isTensorList() && alias && alias->isWrite()) counted = arguments[i].toTensorVector();
  }
#endif
  at::AutoDispatchBelowADInplaceOrView plain;
  OnCPU there(c10::device_or_default(place.device && !place.device->is_cpu() ? place.device : named));
  for (auto i = first; i < stack->size(); ++i) {
    replace_tensors((*stack)[i], [&](const Tensor& t) { return there.enter(t); });
    if ((*stack)[i].isDevice()) (*stack)[i] = Device(c10::kCPU);
  }
  op.redispatchBoxed(c10::DispatchKeySet(c10::DispatchKey::CPU), stack);
  there.finish();
  for (auto i = stack->size() - op.schema().returns().size(); i < stack->size(); ++i)
    replace_tensors((*stack)[i], [&](const Tensor& t) { return there.leave(t); });
#if !TORCH_AT_LEAST(2, 4)
  for (const Tensor& t : counted) t.unsafeGetTensorImpl()->bump_version();
#endif
}

Tensor copy_from(const Tensor& from, const Tensor& to, bool) {
  at::AutoDispatchBelowADInplaceOrView plain;
  OnCPU there(to.device());
  there.enter(to).copy_(there.enter(from));
  return to;
}

// The CPU takes part in convolutions by another name.
Tensor convolution(
    const Tensor& input,
    const Tensor& weight,
    const Optional<Tensor>& bias,
    IntArrayRef stride,
    IntArrayRef padding,
    IntArrayRef dilation,
    bool transposed,
    IntArrayRef output_padding,
    int64_t groups) {
  at::AutoDispatchBelowADInplaceOrView plain;
  OnCPU there(input.device());
  const auto added = bias && bias->defined() ? Optional<Tensor>(there.enter(*bias)) : Optional<Tensor>();
  return there.leave(at::convolution(
      there.enter(input), there.enter(weight), added, stride, padding, dilation, transposed, output_padding, groups));
}

std::tuple<Tensor, Tensor, Tensor> convolution_backward(
    const Tensor& cotangent,
    const Tensor& input,
    const Tensor& weight,
    IntArrayRef stride,
    IntArrayRef padding,
    IntArrayRef dilation,
    bool transposed,
    IntArrayRef output_padding,
    int64_t groups,
    std::array<bool, 3> wanted) {
  at::AutoDispatchBelowADInplaceOrView plain;
  OnCPU there(input.device());
  const std::vector<int64_t> channels{cotangent.size(1)};
  const auto [x, w, b] = at::convolution_backward(
      there.enter(cotangent), there.enter(input), there.enter(weight), at::OptionalIntArrayRef(channels), stride, padding,
      dilation, transposed, output_padding, groups, wanted);
  return {there.leave(x), there.leave(w), there.leave(b)};
}

// ---- A storage put into a tensor.

Tensor& set_storage(Tensor& self, at::Storage source, int64_t offset, IntArrayRef size, IntArrayRef stride) {
  auto* impl = self.unsafeGetTensorImpl();
  impl->set_storage_keep_dtype(std::move(source));
  impl->set_storage_offset(offset);
  impl->set_sizes_and_strides(size, stride);
  return self;
}

Tensor& set_whole_storage(Tensor& self, at::Storage source) {
  const int64_t numbers = source.nbytes() / self.dtype().itemsize();
  return set_storage(self, std::move(source), 0, {numbers}, {1});
}

Tensor& set_tensor(Tensor& self, const Tensor& source) {
  return set_storage(self, source.storage(), source.storage_offset(), source.sizes(), source.strides());
}

Tensor& set_nothing(Tensor& self) {
  c10::DeviceGuard guard(self.device());
  c10::Storage storage(c10::Storage::use_byte_size_t(), 0, allocator.allocate(0), &allocator, true);
  return set_storage(self, std::move(storage), 0, {0}, {1});
}

TORCH_LIBRARY_IMPL(_, PrivateUse1, m) {
  m.fallback(torch::CppFunction::makeFromBoxedFunction<&fallback>());
}

// Most operations have a kernel that is put together for devices without one: it makes the result and calls the variant
// with out=. The CPU's own kernels are nearer to what a device does.
TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  for (const auto& name : c10::Dispatcher::singleton().getAllOpNames()) {
    const auto op = c10::Dispatcher::singleton().findOp(name);
    if (name.name.rfind("aten::", 0) != 0 || !op) continue;
    if (op->hasKernelForDispatchKey(c10::DispatchKey::CompositeExplicitAutogradNonFunctional) &&
        op->hasKernelForDispatchKey(c10::DispatchKey::CPU))
      m.impl(toString(name).c_str(), torch::CppFunction::makeFromBoxedFunction<&fallback>());
  }
}

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("empty.memory_format", &empty);
  m.impl("empty_strided", &empty_strided);
  m.impl("_copy_from", &copy_from);
  m.impl("convolution_overrideable", &convolution);
  m.impl("convolution_backward_overrideable", &convolution_backward);
  m.impl("set_.source_Storage_storage_offset", &set_storage);
  m.impl("set_.source_Storage", &set_whole_storage);
  m.impl("set_.source_Tensor", &set_tensor);
  m.impl("set_", &set_nothing);
}

// Copying reads and writes tensors that are stored conjugated or negated as what they stand for.
TORCH_LIBRARY_IMPL(aten, Conjugate, m) { m.impl("_copy_from", torch::CppFunction::makeFallthrough()); }
TORCH_LIBRARY_IMPL(aten, Negative, m) { m.impl("_copy_from", torch::CppFunction::makeFallthrough()); }

// ---- Mixed precision: products are computed in the lower precision, everything else as it comes.

TORCH_LIBRARY_IMPL(_, AutocastPrivateUse1, m) { m.fallback(torch::CppFunction::makeFallthrough()); }

#ifdef KERNEL_PRIVATEUSEONE
TORCH_LIBRARY_IMPL(aten, AutocastPrivateUse1, m) {
  KERNEL_PRIVATEUSEONE(mm, lower_precision_fp)
  KERNEL_PRIVATEUSEONE(matmul, lower_precision_fp)
  KERNEL_PRIVATEUSEONE(addmm, lower_precision_fp)
  KERNEL_PRIVATEUSEONE(linear, lower_precision_fp)
}
#endif

// ---- What the Python part asks.

int64_t get_current_device() { return current_device; }
void set_current_device(int64_t index) { Guard().setDevice(Device(kKind, static_cast<DeviceIndex>(index))); }

TORCH_LIBRARY(loopback, m) {
  m.def("current_device() -> int", &get_current_device);
  m.def("set_device(int index) -> ()", &set_current_device);
}

}  // namespace
