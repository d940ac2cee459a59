#include "sha256.hpp"

#include <openssl/evp.h>

#include <new>

namespace dlcv {

Sha256::Sha256() : context_(EVP_MD_CTX_new(), EVP_MD_CTX_free) {
  if (!context_ || EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr) != 1) throw std::bad_alloc();
}

void Sha256::add(const std::uint8_t* data, std::size_t bytes) { EVP_DigestUpdate(context_.get(), data, bytes); }

std::string Sha256::hex() {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int bytes = 0;
  EVP_DigestFinal_ex(context_.get(), digest, &bytes);
  std::string text;
  for (unsigned int i = 0; i < bytes; ++i)
    for (const int half : {digest[i] >> 4, digest[i] & 15}) text += "0123456789abcdef"[half];
  return text;
}

}  // namespace dlcv
