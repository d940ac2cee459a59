// The kernel's own source as a library for the host, to be called with arrays: what the proofs call.
#include "../lrn_kernel.cu"

#include <ucontext.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>

namespace shim {

Place thread, block;
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

// Returns what the launch returned; pool is {kernel 2, strides 2, pads 4}, or null for DlcvLRN.
extern "C" int dlcv_host_lrn(const void* x, void* y, int format, const int* shape, int size, const float* numbers,
                             const int* pool, int multiprocessors, int order) {
  const dlcv::Shape s{shape[0], shape[1], shape[2], shape[3]};
  const dlcv::LrnAttributes lrn{size, numbers[0], numbers[1], numbers[2], numbers[3], numbers[4]};
  const auto kind = static_cast<dlcv::Format>(format);
  shim::order = order;
  if (pool == nullptr) return dlcv::lrn(x, y, kind, s, lrn, multiprocessors, nullptr);
  const dlcv::PoolAttributes about{
      {pool[0], pool[1]}, {pool[2], pool[3]}, {pool[4], pool[5], pool[6], pool[7]}};
  return dlcv::lrn_max_pool(x, y, kind, s, lrn, about, multiprocessors, nullptr);
}

// What is wrong with the attributes, or null.
extern "C" const char* dlcv_host_problem(int size, const float* numbers, const int* pool, int int8) {
  const dlcv::LrnAttributes lrn{size, numbers[0], numbers[1], numbers[2], numbers[3], numbers[4]};
  if (const char* problem = dlcv::problem_with(lrn, int8 != 0)) return problem;
  if (pool == nullptr) return nullptr;
  const dlcv::PoolAttributes about{
      {pool[0], pool[1]}, {pool[2], pool[3]}, {pool[4], pool[5], pool[6], pool[7]}};
  return dlcv::problem_with(about);
}

// Float16 by way of float32 and back, for all that the shim claims of it.
extern "C" void dlcv_host_halves(const std::uint16_t* halves, float* wide, const float* floats, std::uint16_t* narrow,
                                 int count) {
  for (int i = 0; i < count; ++i) {
    wide[i] = shim::float_of(halves[i]);
    narrow[i] = shim::half_of(floats[i]);
  }
}
