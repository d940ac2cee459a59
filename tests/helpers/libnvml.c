// As much of NVML as is called by hand: it shows that names and arguments are right.
#include <stdint.h>
#include <string.h>

int nvmlInit_v2(void) { return 0; }
int nvmlShutdown(void) { return 0; }
int nvmlDeviceGetHandleByPciBusId_v2(const char* id, void** device) {
  return *device = (void*)0x123456789abc, strcmp(id, "0000:03:00.0") != 0;
}
int nvmlDeviceGetMemoryInfo(void* device, uint64_t* memory) {
  memory[0] = 24ull << 30, memory[1] = 23ull << 30, memory[2] = 1ull << 30;
  return device != (void*)0x123456789abc;
}
