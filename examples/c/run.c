/* Runs a model compiled by onnxsmith as `my_model`: inputs from standard input, outputs to standard output.

     onnxsmith compile model.onnx -o my_model
     cc run.c -Imy_model -Lmy_model -lmy_model -Wl,-rpath,$PWD/my_model -pthread -o run
     ./run my_model/weights.safetensors THREADS [SIZE OF EACH SYMBOL ...] < inputs > outputs

   Inputs and outputs are dense arrays in the machine's byte order, one after the other in the model's order. */

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "my_model.h"

enum { ALIGNMENT = 64, MOST_THREADS = 64 };

static void stop(const char *what) {
  fprintf(stderr, "run: %s\n", what);
  exit(1);
}

static void check(const void *context, int32_t code) {
  my_model_failure failure;
  if (code == MY_MODEL_DONE) return;
  fprintf(stderr, "run: error %d: %s", (int)code, my_model_error_text(code));
  if (my_model_last_failure(context, &failure) == MY_MODEL_DONE)
    fprintf(stderr, " (%s: %lld, %lld)", failure.where, (long long)failure.value, (long long)failure.limit);
  fprintf(stderr, "\n");
  exit(1);
}

static void *allocate(int64_t bytes) {
  size_t rounded = ((size_t)bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
  void *memory = aligned_alloc(ALIGNMENT, rounded ? rounded : ALIGNMENT);
  if (!memory) stop("out of memory");
  return memory;
}

static const void *map_file(const char *path, int64_t *bytes) {
  struct stat status;
  int file = open(path, O_RDONLY);
  if (file < 0 || fstat(file, &status) != 0) stop("the weights cannot be opened");
  void *mapped = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_SHARED, file, 0);
  if (mapped == MAP_FAILED) stop("the weights cannot be mapped");
  close(file);
  *bytes = status.st_size;
  return mapped;
}

/* A lent thread: one call of the task. */
typedef struct {
  pthread_t thread;
  void (*task)(void *argument, int32_t index);
  void *argument;
  int32_t index;
} lent;

static void *call_task(void *one) {
  lent *self = one;
  self->task(self->argument, self->index);
  return NULL;
}

/* Starts threads for one run. A program that runs often would wake threads that it keeps. */
static void lend_threads(void *state, int32_t count, void (*task)(void *argument, int32_t index), void *argument) {
  lent threads[MOST_THREADS];
  int32_t started = 1;
  (void)state;
  for (; started < count && started < MOST_THREADS; started++) {
    threads[started] = (lent){.task = task, .argument = argument, .index = started};
    if (pthread_create(&threads[started].thread, NULL, call_task, &threads[started]) != 0) break;
  }
  task(argument, 0);
  for (int32_t index = 1; index < started; index++) pthread_join(threads[index].thread, NULL);
}

int main(int count, char **arguments) {
  if (my_model_version() != MY_MODEL_VERSION) stop("the header is not the library's");
  if (count != 3 + MY_MODEL_SYMBOLS) stop("usage: run WEIGHTS THREADS [SIZE OF EACH SYMBOL ...]");

  int64_t weights_bytes;
  const void *weights = map_file(arguments[1], &weights_bytes);
  int32_t threads = atoi(arguments[2]);
  int64_t sizes[MY_MODEL_SYMBOLS + 1];
  for (int symbol = 0; symbol < MY_MODEL_SYMBOLS; symbol++) sizes[symbol] = atoll(arguments[3 + symbol]);

  int64_t context_bytes = my_model_context_size(threads);
  if (context_bytes < 0) check(NULL, (int32_t)-context_bytes);
  void *context = allocate(context_bytes);
  check(context, my_model_plan(context, context_bytes, threads, sizes));
  int64_t workspace_bytes = my_model_workspace_size(context);
  void *workspace = allocate(workspace_bytes);
  check(context, my_model_bind(context, weights, weights_bytes, workspace, workspace_bytes));

  my_model_buffer inputs[MY_MODEL_INPUTS + 1], outputs[MY_MODEL_OUTPUTS + 1];
  for (int input = 0; input < MY_MODEL_INPUTS; input++) {
    inputs[input].bytes = my_model_input_bytes(context, input);
    inputs[input].data = allocate(inputs[input].bytes);
    if (fread(inputs[input].data, 1, (size_t)inputs[input].bytes, stdin) != (size_t)inputs[input].bytes)
      stop("the inputs are cut off");
  }
  for (int output = 0; output < MY_MODEL_OUTPUTS; output++) {
    outputs[output].bytes = my_model_output_bytes(context, output);
    outputs[output].data = allocate(outputs[output].bytes);
  }
  check(context, my_model_run_parallel(context, inputs, outputs, lend_threads, NULL));

  for (int output = 0; output < MY_MODEL_OUTPUTS; output++) {
    fwrite(outputs[output].data, 1, (size_t)outputs[output].bytes, stdout);
    free(outputs[output].data);
  }
  for (int input = 0; input < MY_MODEL_INPUTS; input++) free(inputs[input].data);
  free(workspace);
  free(context);
  munmap((void *)weights, (size_t)weights_bytes);
  return 0;
}
