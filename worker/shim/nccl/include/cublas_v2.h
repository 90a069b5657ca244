// Types that headers of libtorch name and the plugin never uses; the toolkit's own is 400 MB with its library.
#pragma once
#include <library_types.h>
typedef struct cublasContext* cublasHandle_t;
typedef int cublasStatus_t;
#define CUBLAS_STATUS_SUCCESS 0
