#pragma once
/// Everything of the engine.

#include "framework/autograd.h"
#include "framework/check.h"
#include "framework/checkpoint.h"
#include "framework/for_each_tensor.h"
#include "framework/fused.h"
#include "framework/gradcheck.h"
#include "framework/kernels/parallel.h"
#include "framework/npy.h"
#include "framework/ops.h"
#include "framework/random.h"
#include "framework/row_grad.h"
#include "framework/safetensors.h"
#include "framework/state.h"
#include "framework/tensor.h"
