// The kernels for the host, with every access to memory counted, and what lrn_plan.h says, for test_plugin_traffic.py.
//
// The compiler puts a call before each access (-fsanitize=kernel-address, which brings no library of its own). Nothing
// of the kernels' source is changed.
#include "host/lrn_host.cpp"

namespace counted {

struct Range {
  const char* first;
  const char* last;
  long read_bytes, written_bytes;
};
Range x_range, y_range;

__attribute__((no_sanitize_address)) void count(const void* at, long bytes, bool write) {
  const char* place = static_cast<const char*>(at);
  Range* const ranges[] = {&x_range, &y_range};
  for (int i = 0; i < 2; ++i) {
    if (place < ranges[i]->first || place >= ranges[i]->last) continue;
    (write ? ranges[i]->written_bytes : ranges[i]->read_bytes) += bytes;
  }
}

}  // namespace counted

#define DLCV_COUNTED(n)                                                     \
  void __asan_load##n##_noabort(void* at) { counted::count(at, n, false); } \
  void __asan_store##n##_noabort(void* at) { counted::count(at, n, true); }

extern "C" {

DLCV_COUNTED(1)
DLCV_COUNTED(2)
DLCV_COUNTED(4)
DLCV_COUNTED(8)
DLCV_COUNTED(16)
void __asan_loadN_noabort(void* at, long bytes) { counted::count(at, bytes, false); }
void __asan_storeN_noabort(void* at, long bytes) { counted::count(at, bytes, true); }
void __asan_handle_no_return() {}
void __asan_before_dynamic_init(const char*) {}
void __asan_after_dynamic_init() {}

void counted_watch(const char* x, long x_bytes, const char* y, long y_bytes) {
  counted::x_range = {x, x + x_bytes, 0, 0};
  counted::y_range = {y, y + y_bytes, 0, 0};
}

// Bytes read of x, written to x, read of y, written to y.
void counted_bytes(long* found) {
  found[0] = counted::x_range.read_bytes;
  found[1] = counted::x_range.written_bytes;
  found[2] = counted::y_range.read_bytes;
  found[3] = counted::y_range.written_bytes;
}

int planned_chunk(int pieces, int step, int halo, long blocks, int multiprocessors) {
  return dlcv::chunk_of(pieces, step, halo, blocks, multiprocessors);
}

// pool: kernel 2, strides 2; tile: the pixels of the answers, and those read for them.
void planned_tile(int out_height, int out_width, const int* pool, int pixel_bytes, int* tile) {
  const dlcv::PoolAttributes about{{pool[0], pool[1]}, {pool[2], pool[3]}, {0, 0, 0, 0}};
  const dlcv::Tile found = dlcv::tile_of({1, 1, out_height, out_width}, about, pixel_bytes);
  const int sides[] = {found.out_height, found.out_width, found.in_height, found.in_width};
  std::memcpy(tile, sides, sizeof sides);
}
}
