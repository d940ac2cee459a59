// The kernel's own source as a library for the host, to be called with arrays in place of device memory.
#include <ucontext.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>

#include "../lrn_c.cpp"
#include "../lrn_kernel.cu"

namespace shim {

Place thread, block, size;
int order = 0;

namespace {

constexpr std::size_t kStack = 1 << 17;

struct Fiber {
  ucontext_t context;
  std::unique_ptr<char[]> stack{new char[kStack]};
  bool done;
};

std::vector<Fiber> fibers;
ucontext_t scheduler;
Fiber* running = nullptr;
const std::function<void()>* body = nullptr;
std::unique_ptr<char[]> memory;

void start() {
  (*body)();
  running->done = true;
}

unsigned turn(unsigned i, unsigned threads) {
  if (order == 1) return threads - 1 - i;
  if (order == 2) return i < threads / 2 ? 2 * i + 1 : 2 * (i - threads / 2);
  return i;
}

void run_block_together(unsigned threads) {
  if (fibers.size() < threads) fibers = std::vector<Fiber>(threads);
  for (unsigned i = 0; i < threads; ++i) {
    Fiber& fiber = fibers[i];
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.get();
    fiber.context.uc_stack.ss_size = kStack;
    fiber.context.uc_link = &scheduler;
    fiber.done = false;
    makecontext(&fiber.context, start, 0);
  }
  for (unsigned left = threads; left > 0;) {
    unsigned ended = 0;
    for (unsigned i = 0; i < threads; ++i) {
      const unsigned at = turn(i, threads);
      if (fibers[at].done) continue;
      running = &fibers[at];
      thread = {at, 0, 0};
      swapcontext(&scheduler, &running->context);
      ended += running->done;
    }
    if (ended != 0 && ended != left) {
      std::fprintf(stderr, "%u of %u threads ended while the others wait at a barrier\n", ended, left);
      std::abort();
    }
    left -= ended;
  }
  running = nullptr;
}

}  // namespace

void barrier() {
  if (running == nullptr) {
    std::fprintf(stderr, "a barrier in a kernel that was not launched together\n");
    std::abort();
  }
  swapcontext(&running->context, &scheduler);
}

void* shared(std::size_t bytes) {
  if (memory == nullptr) {
    memory.reset(new char[bytes]);
    std::memset(memory.get(), 0x7f, bytes);  // NaN in float16, all but the greatest in float32, the greatest in int8
  }
  return memory.get();
}

void launch(dim3 grid, unsigned threads, bool together, const std::function<void()>& kernel) {
  body = &kernel;
  size = {threads, 1, 1};
  for (unsigned y = 0; y < grid.y; ++y) {
    for (unsigned x = 0; x < grid.x; ++x) {
      block = {x, y, 0};
      memory.reset();
      if (together) {
        run_block_together(threads);
        continue;
      }
      for (unsigned i = 0; i < threads; ++i) {
        thread = {turn(i, threads), 0, 0};
        kernel();
      }
    }
  }
  memory.reset();
}

}  // namespace shim

extern "C" void dlcv_host_order(int order) { shim::order = order; }

// Float16 by way of float32 and back, for all that the shim claims of it.
extern "C" void dlcv_host_halves(const std::uint16_t* halves, float* wide, const float* floats, std::uint16_t* narrow,
                                 int count) {
  for (int i = 0; i < count; ++i) {
    wide[i] = shim::float_of(halves[i]);
    narrow[i] = shim::half_of(floats[i]);
  }
}
