/* A tiny libnvidia-ml.so.1: as much of NVML as the probe uses, steered by the environment.
 *
 * FAKE_GPUS       how many GPUs there are
 * FAKE_INIT       error that nvmlInitWithFlags returns
 * FAKE_LOST_FILE  where a file of this name exists, GPU 1 is lost (NVML_ERROR_GPU_IS_LOST)
 * FAKE_HANG_FILE  while a file of this name exists, readings of GPU 1 do not return
 * FAKE_NO_POWER   power is not supported
 * FAKE_MIG_FILE   where a file of this name exists it holds "GPU COUNT": that GPU is partitioned, into so many
 *                 instances of 1g.10gb; the name of every other one does not say so
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { OK = 0, INVALID = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, GPU_IS_LOST = 15 };
enum { WHOLE = -1, PLACES = 7 };

typedef struct { unsigned index; int instance; } *device_t;
typedef struct { unsigned long long total, free, used; } memory_t;
typedef struct { unsigned gpu, memory; } utilization_t;

typedef struct {
    unsigned multiprocessors, copies, decoders, encoders, jpegs, ofas, gpu_slices, compute_slices;
    unsigned long long memory_mb;
} attributes_t;

static struct { unsigned index; int instance; } devices[16], instances[16][PLACES];

static int number(const char *name) {
    const char *text = getenv(name);
    return text ? atoi(text) : 0;
}

static int exists(const char *name) {
    const char *path = getenv(name);
    return path && access(path, F_OK) == 0;
}

/* How many instances a GPU has; WHOLE where it is not partitioned. */
static int partitions(unsigned index) {
    const char *path = getenv("FAKE_MIG_FILE");
    FILE *file = path ? fopen(path, "r") : NULL;
    unsigned gpu;
    int count;
    if (file == NULL) return WHOLE;
    int read = fscanf(file, "%u %d", &gpu, &count);
    fclose(file);
    return read == 2 && gpu == index ? count : WHOLE;
}

static int state(device_t device) {
    while (device->index == 1 && exists("FAKE_HANG_FILE"))
        usleep(1000);
    return device->index == 1 && exists("FAKE_LOST_FILE") ? GPU_IS_LOST : OK;
}

const char *nvmlErrorString(int code) { return code == GPU_IS_LOST ? "GPU is lost" : "fake error"; }

int nvmlInitWithFlags(unsigned flags) { (void)flags; return number("FAKE_INIT"); }
int nvmlInit_v2(void) { return number("FAKE_INIT"); }
int nvmlShutdown(void) { return OK; }

int nvmlDeviceGetCount_v2(unsigned *count) { *count = number("FAKE_GPUS"); return OK; }

int nvmlDeviceGetHandleByIndex_v2(unsigned index, device_t *device) {
    if ((int)index >= number("FAKE_GPUS") || index >= 16) return INVALID;
    devices[index].index = index;
    devices[index].instance = WHOLE;
    *device = (device_t)&devices[index];
    return OK;
}

int nvmlDeviceGetUUID(device_t device, char *uuid, unsigned size) {
    if (device->instance != WHOLE)
        snprintf(uuid, size, "MIG-00000000-0000-0000-%04u-%012d", device->index, device->instance);
    else
        snprintf(uuid, size, "GPU-00000000-0000-0000-0000-%012u", device->index);
    return OK;
}

int nvmlDeviceGetName(device_t device, char *name, unsigned size) {
    int says = device->instance != WHOLE && device->instance % 2 == 0;
    snprintf(name, size, "NVIDIA H100 80GB HBM3%s", says ? " MIG 1g.10gb" : "");
    return state(device);
}

int nvmlDeviceGetMemoryInfo(device_t device, memory_t *memory) {
    if (device->instance != WHOLE && device->instance >= partitions(device->index)) return INVALID;
    memory->total = device->instance != WHOLE ? 9856ULL << 20 : 80ULL << 30;
    memory->used = (unsigned long long)(device->index + 1) << 30;
    memory->free = memory->total - memory->used;
    return state(device);
}

int nvmlDeviceGetUtilizationRates(device_t device, utilization_t *utilization) {
    if (partitions(device->index) != WHOLE) return NOT_SUPPORTED;
    utilization->gpu = 40 + device->index;
    utilization->memory = 20;
    return state(device);
}

int nvmlDeviceGetPowerUsage(device_t device, unsigned *milliwatts) {
    *milliwatts = 350500;
    return getenv("FAKE_NO_POWER") ? NOT_SUPPORTED : state(device);
}

int nvmlDeviceGetTemperature(device_t device, int sensor, unsigned *celsius) {
    (void)sensor;
    *celsius = 61;
    return state(device);
}

int nvmlDeviceGetMigMode(device_t device, unsigned *current, unsigned *pending) {
    *current = *pending = partitions(device->index) != WHOLE;
    return state(device);
}

int nvmlDeviceGetMaxMigDeviceCount(device_t device, unsigned *count) {
    *count = PLACES;
    return state(device);
}

int nvmlDeviceGetMigDeviceHandleByIndex(device_t device, unsigned index, device_t *instance) {
    if (index >= PLACES) return INVALID;
    if ((int)index >= partitions(device->index)) return NOT_FOUND;
    instances[device->index][index].index = device->index;
    instances[device->index][index].instance = (int)index;
    *instance = (device_t)&instances[device->index][index];
    return state(device);
}

int nvmlDeviceGetGpuInstanceId(device_t device, unsigned *id) {
    *id = 7 + (unsigned)device->instance;
    return state(device);
}

int nvmlDeviceGetAttributes_v2(device_t device, attributes_t *attributes) {
    memset(attributes, 0, sizeof *attributes);
    attributes->gpu_slices = attributes->compute_slices = 1;
    attributes->memory_mb = 9856;
    return state(device);
}

int nvmlDeviceGetComputeRunningProcesses_v3(device_t device, unsigned *count, void *processes) {
    (void)processes;
    *count = 0;
    return state(device);
}
