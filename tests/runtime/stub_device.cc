// An accelerator for the tests: devices of a type of one's choice in the real TensorFlow runtime.
//
// STUB_DEVICE_TYPE names the type (MLU, HPU, NPU) and STUB_DEVICE_COUNT says how many there are.
// The memory is the host's and there are no kernels of its own: what TensorFlow has for every
// pluggable device (variables, copies, control flow) runs on it, all else is placed on the CPU.

#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>

#include "tensorflow/c/experimental/stream_executor/stream_executor.h"
#include "tensorflow/c/tf_status.h"

struct SP_Stream_st {};
struct SP_Event_st {};
struct SP_Timer_st {
  std::chrono::steady_clock::time_point begin, end;
};

namespace {

void Ok(TF_Status* status) { TF_SetStatus(status, TF_OK, ""); }

const char* Setting(const char* name, const char* otherwise) {
  const char* value = std::getenv(name);
  return value != nullptr ? value : otherwise;
}

void Allocate(const SP_Device*, uint64_t size, int64_t, SP_DeviceMemoryBase* memory) {
  memory->struct_size = SP_DEVICE_MEMORY_BASE_STRUCT_SIZE;
  memory->ext = nullptr;
  memory->payload = 0;
  // Kernels that compute on this memory expect the alignment of TensorFlow's own tensors.
  memory->opaque = std::aligned_alloc(64, (size + 63) / 64 * 64);
  memory->size = memory->opaque != nullptr ? size : 0;
}

void Deallocate(const SP_Device*, SP_DeviceMemoryBase* memory) {
  std::free(memory->opaque);
  memory->opaque = nullptr;
  memory->size = 0;
}

void* HostAllocate(const SP_Device*, uint64_t size) {
  return std::aligned_alloc(64, (size + 63) / 64 * 64);
}

void HostDeallocate(const SP_Device*, void* memory) { std::free(memory); }

TF_Bool AllocatorStats(const SP_Device*, SP_AllocatorStats*) { return false; }

TF_Bool MemoryUsage(const SP_Device*, int64_t* free, int64_t* total) {
  *free = *total = int64_t{1} << 30;
  return true;
}

void CreateStream(const SP_Device*, SP_Stream* stream, TF_Status* status) {
  *stream = new SP_Stream_st;
  Ok(status);
}

void DestroyStream(const SP_Device*, SP_Stream stream) { delete stream; }

void StreamDependency(const SP_Device*, SP_Stream, SP_Stream, TF_Status* status) { Ok(status); }

void StreamStatus(const SP_Device*, SP_Stream, TF_Status* status) { Ok(status); }

void CreateEvent(const SP_Device*, SP_Event* event, TF_Status* status) {
  *event = new SP_Event_st;
  Ok(status);
}

void DestroyEvent(const SP_Device*, SP_Event event) { delete event; }

// Every call below has finished when it returns, and so has every event.
SE_EventStatus EventStatus(const SP_Device*, SP_Event) { return SE_EVENT_COMPLETE; }

void StreamEvent(const SP_Device*, SP_Stream, SP_Event, TF_Status* status) { Ok(status); }

void CreateTimer(const SP_Device*, SP_Timer* timer, TF_Status* status) {
  *timer = new SP_Timer_st;
  Ok(status);
}

void DestroyTimer(const SP_Device*, SP_Timer timer) { delete timer; }

void StartTimer(const SP_Device*, SP_Stream, SP_Timer timer, TF_Status* status) {
  timer->begin = std::chrono::steady_clock::now();
  Ok(status);
}

void StopTimer(const SP_Device*, SP_Stream, SP_Timer timer, TF_Status* status) {
  timer->end = std::chrono::steady_clock::now();
  Ok(status);
}

uint64_t Nanoseconds(SP_Timer timer) {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(timer->end - timer->begin).count();
}

void ToHost(const SP_Device*, SP_Stream, void* to, const SP_DeviceMemoryBase* from, uint64_t size,
            TF_Status* status) {
  std::memcpy(to, from->opaque, size);
  Ok(status);
}

void ToDevice(const SP_Device*, SP_Stream, SP_DeviceMemoryBase* to, const void* from,
              uint64_t size, TF_Status* status) {
  std::memcpy(to->opaque, from, size);
  Ok(status);
}

void OnDevice(const SP_Device*, SP_Stream, SP_DeviceMemoryBase* to,
              const SP_DeviceMemoryBase* from, uint64_t size, TF_Status* status) {
  std::memmove(to->opaque, from->opaque, size);
  Ok(status);
}

void SyncToHost(const SP_Device* device, void* to, const SP_DeviceMemoryBase* from, uint64_t size,
                TF_Status* status) {
  ToHost(device, nullptr, to, from, size, status);
}

void SyncToDevice(const SP_Device* device, SP_DeviceMemoryBase* to, const void* from,
                  uint64_t size, TF_Status* status) {
  ToDevice(device, nullptr, to, from, size, status);
}

void SyncOnDevice(const SP_Device* device, SP_DeviceMemoryBase* to,
                  const SP_DeviceMemoryBase* from, uint64_t size, TF_Status* status) {
  OnDevice(device, nullptr, to, from, size, status);
}

void BlockForEvent(const SP_Device*, SP_Event, TF_Status* status) { Ok(status); }

void BlockUntilDone(const SP_Device*, SP_Stream, TF_Status* status) { Ok(status); }

void Synchronize(const SP_Device*, TF_Status* status) { Ok(status); }

void Fill(const SP_Device*, SP_Stream, SP_DeviceMemoryBase* location, uint8_t pattern,
          uint64_t size, TF_Status* status) {
  std::memset(location->opaque, pattern, size);
  Ok(status);
}

void Zero(const SP_Device* device, SP_Stream stream, SP_DeviceMemoryBase* location, uint64_t size,
          TF_Status* status) {
  Fill(device, stream, location, 0, size, status);
}

void Fill32(const SP_Device*, SP_Stream, SP_DeviceMemoryBase* location, uint32_t pattern,
            uint64_t size, TF_Status* status) {
  auto* words = static_cast<uint32_t*>(location->opaque);
  for (uint64_t i = 0; i < size / sizeof(pattern); ++i) words[i] = pattern;
  Ok(status);
}

TF_Bool HostCallback(const SP_Device*, SP_Stream, SE_StatusCallbackFn callback, void* argument) {
  TF_Status* status = TF_NewStatus();
  callback(argument, status);
  const bool done = TF_GetCode(status) == TF_OK;
  TF_DeleteStatus(status);
  return done;
}

void DeviceCount(const SP_Platform*, int* count, TF_Status* status) {
  *count = std::atoi(Setting("STUB_DEVICE_COUNT", "1"));
  Ok(status);
}

void CreateDevice(const SP_Platform*, SE_CreateDeviceParams* params, TF_Status* status) {
  params->device->struct_size = SP_DEVICE_STRUCT_SIZE;
  params->device->device_handle = nullptr;
  params->device->ordinal = params->ordinal;
  params->device->hardware_name = "stub";
  params->device->device_vendor = "stub";
  params->device->pci_bus_id = "0000:00:00.0";
  Ok(status);
}

void DestroyDevice(const SP_Platform*, SP_Device*) {}

void CreateDeviceFns(const SP_Platform*, SE_CreateDeviceFnsParams* params, TF_Status* status) {
  params->device_fns->struct_size = SP_DEVICE_FNS_STRUCT_SIZE;
  params->device_fns->get_numa_node = nullptr;
  params->device_fns->get_memory_bandwidth = nullptr;
  params->device_fns->get_gflops = nullptr;
  Ok(status);
}

void DestroyDeviceFns(const SP_Platform*, SP_DeviceFns*) {}

void CreateStreamExecutor(const SP_Platform*, SE_CreateStreamExecutorParams* params,
                          TF_Status* status) {
  SP_StreamExecutor* executor = params->stream_executor;
  executor->struct_size = SP_STREAMEXECUTOR_STRUCT_SIZE;
  executor->allocate = Allocate;
  executor->deallocate = Deallocate;
  executor->host_memory_allocate = HostAllocate;
  executor->host_memory_deallocate = HostDeallocate;
  executor->get_allocator_stats = AllocatorStats;
  executor->device_memory_usage = MemoryUsage;
  executor->create_stream = CreateStream;
  executor->destroy_stream = DestroyStream;
  executor->create_stream_dependency = StreamDependency;
  executor->get_stream_status = StreamStatus;
  executor->create_event = CreateEvent;
  executor->destroy_event = DestroyEvent;
  executor->get_event_status = EventStatus;
  executor->record_event = StreamEvent;
  executor->wait_for_event = StreamEvent;
  executor->create_timer = CreateTimer;
  executor->destroy_timer = DestroyTimer;
  executor->start_timer = StartTimer;
  executor->stop_timer = StopTimer;
  executor->memcpy_dtoh = ToHost;
  executor->memcpy_htod = ToDevice;
  executor->memcpy_dtod = OnDevice;
  executor->sync_memcpy_dtoh = SyncToHost;
  executor->sync_memcpy_htod = SyncToDevice;
  executor->sync_memcpy_dtod = SyncOnDevice;
  executor->block_host_for_event = BlockForEvent;
  executor->block_host_until_done = BlockUntilDone;
  executor->synchronize_all_activity = Synchronize;
  executor->mem_zero = Zero;
  executor->memset = Fill;
  executor->memset32 = Fill32;
  executor->host_callback = HostCallback;
  Ok(status);
}

void DestroyStreamExecutor(const SP_Platform*, SP_StreamExecutor*) {}

void CreateTimerFns(const SP_Platform*, SP_TimerFns* fns, TF_Status* status) {
  fns->struct_size = SP_TIMER_FNS_STRUCT_SIZE;
  fns->nanoseconds = Nanoseconds;
  Ok(status);
}

void DestroyTimerFns(const SP_Platform*, SP_TimerFns*) {}

void DestroyPlatform(SP_Platform*) {}

void DestroyPlatformFns(SP_PlatformFns*) {}

}  // namespace

extern "C" void SE_InitPlugin(SE_PlatformRegistrationParams* params, TF_Status* status) {
  // The runtime keeps the pointers.
  static const std::string type = Setting("STUB_DEVICE_TYPE", "MLU");
  static const std::string name = "STUB_" + type;
  params->major_version = SE_MAJOR;
  params->minor_version = SE_MINOR;
  params->patch_version = SE_PATCH;
  params->platform->struct_size = SP_PLATFORM_STRUCT_SIZE;
  params->platform->name = name.c_str();
  params->platform->type = type.c_str();
  params->platform->supports_unified_memory = false;
  params->platform->use_bfc_allocator = true;
  params->platform->force_memory_growth = false;
  params->platform_fns->struct_size = SP_PLATFORM_FNS_STRUCT_SIZE;
  params->platform_fns->get_device_count = DeviceCount;
  params->platform_fns->create_device = CreateDevice;
  params->platform_fns->destroy_device = DestroyDevice;
  params->platform_fns->create_device_fns = CreateDeviceFns;
  params->platform_fns->destroy_device_fns = DestroyDeviceFns;
  params->platform_fns->create_stream_executor = CreateStreamExecutor;
  params->platform_fns->destroy_stream_executor = DestroyStreamExecutor;
  params->platform_fns->create_timer_fns = CreateTimerFns;
  params->platform_fns->destroy_timer_fns = DestroyTimerFns;
  params->destroy_platform = DestroyPlatform;
  params->destroy_platform_fns = DestroyPlatformFns;
  Ok(status);
}

extern "C" void TF_InitKernel() {}
