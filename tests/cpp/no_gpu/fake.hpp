// What the stand-ins for CUDA and TensorRT share: a call that is told to fail, and what is alive.
#pragma once

#include <functional>
#include <mutex>
#include <string>
#include <vector>

namespace fake {

inline std::mutex mutex;
inline std::string failing;  // the name of a call
inline int countdown = 0;    // which of its calls fails: 1 is the next
inline int alive = 0;        // memory, streams, graphs and objects of TensorRT
inline int launches = 0;     // of graphs
inline thread_local int device = 0;

inline bool fails(const char* call) {
  const std::lock_guard<std::mutex> lock(mutex);
  return failing == call && countdown > 0 && --countdown == 0;
}

inline void count(int more) {
  const std::lock_guard<std::mutex> lock(mutex);
  alive += more;
}

struct Alive {
  Alive() { count(1); }
  ~Alive() { count(-1); }
};

using Work = std::vector<std::function<void()>>;

}  // namespace fake
