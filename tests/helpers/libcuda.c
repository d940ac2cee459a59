// As much of libcuda as is called by hand, with the host's memory: it shows that names and arguments are right.
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

int cuInit(unsigned flags) { return flags != 0; }
int cuDeviceGet(int* device, int ordinal) { return *device = 3, ordinal != 0; }
int cuDevicePrimaryCtxRetain(void** context, int device) { return *context = (void*)0x123456789abc, device != 3; }
int cuCtxSetCurrent(void* context) { return context != (void*)0x123456789abc; }
int cuDeviceGetAttribute(int* value, int attribute, int device) { return *value = 1000 + attribute, device != 3; }
int cuDeviceGetName(char* name, int length, int device) { return snprintf(name, length, "GPU %d", device) < 0; }
int cuDeviceGetPCIBusId(char* id, int length, int device) { return snprintf(id, length, "0000:0%d:00.0", device) < 0; }
int cuDriverGetVersion(int* version) { return *version = 13020, 0; }
int cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t bytes, void* stream) {
  if (stream != (void*)0x1122334455667788) return 400;
  return memcpy((void*)to, (void*)from, bytes), 0;
}
int cuMemsetD8Async(uint64_t to, unsigned char value, size_t bytes, void* stream) {
  if (stream != (void*)0x1122334455667788) return 400;
  return memset((void*)to, value, bytes), 0;
}
