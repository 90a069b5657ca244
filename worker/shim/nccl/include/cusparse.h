// See cublas_v2.h.
#pragma once
typedef struct cusparseContext* cusparseHandle_t;
typedef int cusparseStatus_t;
#define CUSPARSE_STATUS_SUCCESS 0
extern "C" const char* cusparseGetErrorString(cusparseStatus_t);
