/* Write images of a seed as PGM or PPM files, with ONNX Runtime's C API alone.

   cc -O2 -ffp-contract=off -I DIRECTORY_OF_onnxruntime_c_api.h sample.c -o sample -lonnxruntime -lm
   ./sample BUNDLE SEED N OUT        writes OUT-0.pgm … (N files; .ppm where the model has colour) */

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <onnxruntime_c_api.h>

static const OrtApi *ort;

static void fail(const char *problem, const char *what) {
  fprintf(stderr, "%s: %s\n", problem, what);
  exit(2);
}

static void check(OrtStatus *status) {
  if (status) fail("ONNX Runtime", ort->GetErrorMessage(status));
}

static double polynomial(const double *coefficients, int count, double x) {
  double result = 0;
  while (count--) result = result * x + coefficients[count];
  return result;
}

/* The word as a standard normal number: docs/noise.md, section 2. */
static float normal(uint32_t word) {
  static const double A[] = {3.3871328727963666080e0, 1.3314166789178437745e2, 1.9715909503065514427e3,
                             1.3731693765509461125e4, 4.5921953931549871457e4, 6.7265770927008700853e4,
                             3.3430575583588128105e4, 2.5090809287301226727e3},
                      B[] = {1.0, 4.2313330701600911252e1, 6.8718700749205790830e2, 5.3941960214247511077e3,
                             2.1213794301586595867e4, 3.9307895800092710610e4, 2.8729085735721942674e4,
                             5.2264952788528545610e3},
                      C[] = {1.42343711074968357734e0, 4.63033784615654529590e0, 5.76949722146069140550e0,
                             3.64784832476320460504e0, 1.27045825245236838258e0, 2.41780725177450611770e-1,
                             2.27238449892691845833e-2, 7.74545014278341407640e-4},
                      D[] = {1.0, 2.05319162663775882187e0, 1.67638483018380384940e0, 6.89767334985100004550e-1,
                             1.48103976427480074590e-1, 1.51986665636164571966e-2, 5.47593808499534494600e-4,
                             1.05075007164441684324e-9};
  double q = (word - 2147483647.5) / 4294967296.0;
  if (fabs(q) <= 0.425) {
    double r = 0.180625 - q * q;
    return (float)(q * (polynomial(A, 8, r) / polynomial(B, 8, r)));
  }
  uint32_t depth = word < UINT32_MAX - word ? word : UINT32_MAX - word;
  double series[11];
  for (int k = 0; k < 11; k++) series[k] = 1.0 / (2 * k + 1);
  int exponent;
  double m = 2 * frexp(2.0 * depth + 1, &exponent); /* in [1, 2) */
  exponent--;
  if (m > 1.4142135623730951) {
    m /= 2;
    exponent++;
  }
  double s = (m - 1) / (m + 1);
  double logarithm = (2 * s) * polynomial(series, 11, s * s) + (exponent - 33) * 0.6931471805599453;
  double r = sqrt(-logarithm) - 1.6;
  double z = polynomial(C, 8, r) / polynomial(D, 8, r);
  return (float)(q < 0 ? -z : z);
}

/* A row of noise: docs/noise.md, section 1. */
static void noise(uint64_t seed, uint64_t row, int64_t dim, float *z) {
  for (int64_t block = 0; block * 4 < dim; block++) {
    uint32_t c[4] = {(uint32_t)block, 0, (uint32_t)row, (uint32_t)(row >> 32)};
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    for (int round = 0; round < 10; round++, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u) {
      uint64_t p = UINT64_C(0xD2511F53) * c[0], q = UINT64_C(0xCD9E8D57) * c[2];
      uint32_t next[4] = {(uint32_t)(q >> 32) ^ c[1] ^ k0, (uint32_t)q, (uint32_t)(p >> 32) ^ c[3] ^ k1, (uint32_t)p};
      memcpy(c, next, sizeof c);
    }
    for (int i = 0; i < 4 && block * 4 + i < dim; i++) z[block * 4 + i] = normal(c[i]);
  }
}

static OrtSession *open_graph(OrtEnv *env, const char *bundle, const char *name) {
  char path[4096];
  if (snprintf(path, sizeof path, "%s/%s", bundle, name) >= (int)sizeof path) fail("the path is too long", bundle);
  OrtSessionOptions *options;
  OrtSession *session;
  check(ort->CreateSessionOptions(&options));
  check(ort->CreateSession(env, path, options, &session));
  ort->ReleaseSessionOptions(options);
  return session;
}

static OrtValue *run(OrtSession *session, const char *input, const OrtValue *value, const char *output) {
  OrtValue *result = NULL;
  check(ort->Run(session, NULL, &input, &value, 1, &output, 1, &result));
  return result;
}

/* The number of noise columns: the second dimension of the prior's input. */
static int64_t noise_dim(OrtSession *prior) {
  OrtTypeInfo *type;
  const OrtTensorTypeAndShapeInfo *tensor;
  int64_t shape[2];
  check(ort->SessionGetInputTypeInfo(prior, 0, &type));
  check(ort->CastTypeInfoToTensorInfo(type, &tensor));
  check(ort->GetDimensions(tensor, shape, 2));
  ort->ReleaseTypeInfo(type);
  if (shape[1] < 1) fail("prior.onnx", "its input has no fixed number of columns");
  return shape[1];
}

static void write_image(const OrtValue *image, const char *out, uint64_t row) {
  OrtTensorTypeAndShapeInfo *tensor;
  int64_t shape[4]; /* 1, height, width, channels */
  const void *pixels;
  check(ort->GetTensorTypeAndShape(image, &tensor));
  check(ort->GetDimensions(tensor, shape, 4));
  ort->ReleaseTensorTypeAndShapeInfo(tensor);
  check(ort->GetTensorMutableData((OrtValue *)image, (void **)&pixels));
  char path[4096];
  snprintf(path, sizeof path, "%s-%" PRIu64 ".%s", out, row, shape[3] == 1 ? "pgm" : "ppm");
  FILE *file = fopen(path, "wb");
  size_t bytes = (size_t)(shape[1] * shape[2] * shape[3]);
  if (!file) fail("cannot write", path);
  fprintf(file, "P%d\n%" PRId64 " %" PRId64 "\n255\n", shape[3] == 1 ? 5 : 6, shape[2], shape[1]);
  if (fwrite(pixels, 1, bytes, file) != bytes || fclose(file)) fail("cannot write", path);
}

/* A decimal number from 0 to 2^53 - 1. */
static uint64_t integer(const char *name, const char *text) {
  char *end;
  unsigned long long value = strtoull(text, &end, 10);
  if (*text < '0' || *text > '9' || *end || value >> 53) fail(name, "must be an integer from 0 to 9007199254740991");
  return value;
}

int main(int count, char **words) {
  if (count != 5) fail("usage", "sample BUNDLE SEED N OUT");
  uint64_t seed = integer("SEED", words[2]), n = integer("N", words[3]);
  OrtEnv *env;
  OrtMemoryInfo *memory;
  ort = OrtGetApiBase()->GetApi(ORT_API_VERSION);
  if (!ort) fail("ONNX Runtime", "the library is older than the header");
  check(ort->CreateEnv(ORT_LOGGING_LEVEL_WARNING, "sample", &env));
  check(ort->CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &memory));
  OrtSession *prior = open_graph(env, words[1], "prior.onnx"), *decoder = open_graph(env, words[1], "decoder.onnx");
  int64_t shape[] = {1, noise_dim(prior)};
  float *z = malloc((size_t)shape[1] * sizeof *z);
  if (!z) fail("memory", "there is too little of it");
  for (uint64_t row = 0; row < n; row++) {
    OrtValue *input;
    noise(seed, row, shape[1], z);
    check(ort->CreateTensorWithDataAsOrtValue(memory, z, (size_t)shape[1] * sizeof *z, shape, 2,
                                              ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, &input));
    OrtValue *latent = run(prior, "noise", input, "latent");
    OrtValue *image = run(decoder, "latent", latent, "image");
    write_image(image, words[4], row);
    ort->ReleaseValue(input);
    ort->ReleaseValue(latent);
    ort->ReleaseValue(image);
  }
  free(z);
  ort->ReleaseSession(prior);
  ort->ReleaseSession(decoder);
  ort->ReleaseMemoryInfo(memory);
  ort->ReleaseEnv(env);
  return 0;
}
