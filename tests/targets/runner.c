/* Runs the steps of a planned program, for systems on which no Python runs here (see windows_run.py).
 *
 *   runner LIBRARY FOLDER
 *
 * FOLDER/plan.txt tells sizes and steps, weights.bin and input0.bin, ... hold data; output0.bin, ... are written.
 * layout.h is made of onnxsmith/native_layout.py. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <windows.h>

#include "layout.h"

enum { THREADS = 4, RUNS = 6, MOST = 64 };

static const char *folder;
static int64_t pool[POOL_WORDS], run_block[RUN_WORDS], contexts[THREADS * CONTEXT_WORDS];
static int64_t (*pool_worker)(int64_t, int64_t);

static void fail(const char *what) {
    fprintf(stderr, "%s\n", what);
    exit(1);
}

static FILE *open_file(const char *name, const char *mode) {
    char path[1024];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, mode);
    if (!file) fail(path);
    return file;
}

static char *aligned(int64_t size) {
    char *memory = calloc(1, size + 4096);
    if (!memory) fail("no memory");
    return memory + (-(intptr_t)memory & 63);
}

static char *read_data(const char *name, int64_t size) {
    char *memory = aligned(size);
    FILE *file = open_file(name, "rb");
    if (fread(memory, 1, size, file) != (size_t)size) fail(name);
    fclose(file);
    return memory;
}

static long long number(FILE *plan) {
    long long value;
    if (fscanf(plan, "%lld", &value) != 1) fail("plan.txt: a number is missing");
    return value;
}

static void *function(HMODULE library, const char *name) {
    void *found = (void *)GetProcAddress(library, name);
    if (!found) fail(name);
    return found;
}

static DWORD WINAPI work(void *index) {
    pool_worker((intptr_t)pool, (intptr_t)index);
    return 0;
}

int main(int count, char **arguments) {
    if (count != 3) fail("runner LIBRARY FOLDER");
    folder = arguments[2];
    HMODULE library = LoadLibraryA(arguments[1]), kernel = LoadLibraryA("kernelbase.dll");
    if (!library || !kernel) fail("a library is not loaded");
    if (((int64_t (*)(void))function(library, "os_core_version"))() != CORE_VERSION) fail("another core");
    int64_t (*steps)(int64_t, int64_t, int64_t) = function(library, "os_steps");
    void (*stop)(int64_t) = function(library, "os_pool_stop");
    pool_worker = function(library, "os_pool_worker");

    FILE *plan = open_file("plan.txt", "r");
    char *regions[2 + 2 * MOST], name[256];
    int64_t output_sizes[MOST];
    char *weights = read_data("weights.bin", number(plan));
    char *arena = aligned(number(plan));
    int64_t scratch = number(plan);
    int inputs = number(plan), outputs = number(plan);
    for (int i = 0; i < inputs; i++) {
        snprintf(name, sizeof name, "input%d.bin", i);
        regions[i] = read_data(name, number(plan));
    }
    for (int i = 0; i < outputs; i++) regions[MOST + i] = aligned(output_sizes[i] = number(plan));

    int64_t step_count = number(plan);
    int64_t *records = (int64_t *)aligned(step_count * STEP_WORDS * 8);
    for (int64_t step = 0; step < step_count; step++) {
        int64_t *record = records + step * STEP_WORDS;
        if (fscanf(plan, "%255s", name) != 1) fail("plan.txt: a symbol is missing");
        int64_t tiles = number(plan), words = number(plan);
        int64_t *table = (int64_t *)aligned(words * 8);
        for (int64_t word = 0; word < words; word++) {
            int place = number(plan), index = place >= 3 ? number(plan) : 0;
            int64_t value = number(plan);
            char *base = place == 1 ? arena : place == 2 ? weights : place == 3 ? regions[index] : regions[MOST + index];
            table[word] = place == 0 ? value : (intptr_t)base + value;
        }
        record[STEP_KERNEL] = (intptr_t)function(library, name);
        record[STEP_ARGUMENTS] = (intptr_t)table;
        record[STEP_TILES] = tiles;
        record[STEP_CHUNK] = 1;
        record[STEP_CHUNKS] = tiles;
        record[STEP_THREADS] = tiles > 1 ? THREADS : 1;
        record[STEP_WAKE] = 1;
    }

    pool[POOL_WAIT_KIND] = WAIT_ON_ADDRESS;
    pool[POOL_WAIT_FUNCTION] = (intptr_t)function(kernel, "WaitOnAddress");
    pool[POOL_WAKE_FUNCTION] = (intptr_t)function(kernel, "WakeByAddressSingle");
    pool[POOL_YIELD_FUNCTION] = (intptr_t)function(kernel, "SwitchToThread");
    pool[POOL_ONE] = 1;
    pool[POOL_SPIN] = 600;
    pool[POOL_WORKERS] = THREADS - 1;
    for (int thread = 0; thread < THREADS; thread++) {
        contexts[thread * CONTEXT_WORDS + CONTEXT_SCRATCH] = (intptr_t)aligned(scratch);
        contexts[thread * CONTEXT_WORDS + CONTEXT_SCRATCH_BYTES] = scratch;
        contexts[thread * CONTEXT_WORDS + CONTEXT_THREAD] = thread;
        contexts[thread * CONTEXT_WORDS + CONTEXT_SEEDS] = (intptr_t)&pool[POOL_SEEDS];
    }
    run_block[RUN_STEPS] = (intptr_t)records;
    run_block[RUN_STEP_COUNT] = step_count;
    run_block[RUN_CONTEXTS] = (intptr_t)contexts;
    run_block[RUN_THREADS] = run_block[RUN_PARALLEL] = THREADS;
    run_block[RUN_POOL] = (intptr_t)pool;

    HANDLE threads[THREADS];
    for (intptr_t i = 1; i < THREADS; i++) threads[i] = CreateThread(NULL, 0, work, (void *)i, 0, NULL);
    for (int run = 0; run < RUNS; run++) {
        Sleep(run * 10); /* long enough for the workers to fall asleep */
        int64_t status = steps((intptr_t)run_block, 0, step_count);
        if (status != DONE) {
            fprintf(stderr, "status %lld in step %lld\n", (long long)status, (long long)run_block[RUN_FAULT_STEP]);
            return 1;
        }
    }
    stop((intptr_t)pool);
    if (WaitForMultipleObjects(THREADS - 1, threads + 1, TRUE, 20000) != WAIT_OBJECT_0) fail("a worker does not stop");
    for (int i = 0; i < outputs; i++) {
        snprintf(name, sizeof name, "output%d.bin", i);
        FILE *file = open_file(name, "wb");
        if (fwrite(regions[MOST + i], 1, output_sizes[i], file) != (size_t)output_sizes[i]) fail(name);
        fclose(file);
    }
    return 0;
}
