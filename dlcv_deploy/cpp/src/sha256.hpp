// SHA-256, by OpenSSL.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

struct evp_md_ctx_st;

namespace dlcv {

// Of what it was given, in pieces.
class Sha256 {
 public:
  Sha256();
  void add(const std::uint8_t* data, std::size_t bytes);
  std::string hex();  // ends it

 private:
  std::unique_ptr<evp_md_ctx_st, void (*)(evp_md_ctx_st*)> context_;
};

}  // namespace dlcv
