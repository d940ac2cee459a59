/* The C interface, for other languages. Nothing is thrown across it; strings are UTF-8 and end in 0.
 *
 * Functions that can fail return DLCV_OK or another status; dlcv_last_error then has the words, for the calling thread,
 * until its next call that fails. */
#ifndef DLCV_DLCV_H
#define DLCV_DLCV_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum {
  DLCV_OK = 0,
  DLCV_BUG = 1, /* an exception that is none of this library's */
  DLCV_REQUEST = 2,
  DLCV_MISSING = 3,
  DLCV_TOOL = 4,
  DLCV_ARTIFACT = 5
} dlcv_status;

typedef struct dlcv_engine dlcv_engine;

typedef struct {
  int index;
  const char* label; /* lives as long as the engine */
  double probability;
} dlcv_prediction;

const char* dlcv_version(void);
const char* dlcv_last_error(void);

/* `backend` may be NULL: the first that the bundle holds and this machine runs. */
dlcv_status dlcv_load(const char* bundle, const char* backend, dlcv_engine** engine);
void dlcv_free(dlcv_engine* engine);

const char* dlcv_backend(const dlcv_engine* engine);
size_t dlcv_classes(const dlcv_engine* engine);
const char* dlcv_label(const dlcv_engine* engine, size_t index); /* NULL beyond the classes */
size_t dlcv_input_size(const dlcv_engine* engine);               /* values in one row */

/* `top` predictions at the most into `found`, the best first; `count` gets how many. */
dlcv_status dlcv_classify_file(const dlcv_engine* engine, const char* path, int crops, int top, dlcv_prediction* found,
                               size_t* count);
dlcv_status dlcv_classify_rgb(const dlcv_engine* engine, const uint8_t* rgb, int width, int height, int crops, int top,
                              dlcv_prediction* found, size_t* count);

/* `rows` inputs to rows x dlcv_classes logits. */
dlcv_status dlcv_run(const dlcv_engine* engine, const float* input, size_t rows, float* logits);

#ifdef __cplusplus
}
#endif
#endif
