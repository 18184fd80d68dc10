#pragma once
/// Everything that has parameters.

#include "modules/cell_state.h"
#include "modules/cells.h"
#include "modules/dropout.h"
#include "modules/embedding.h"
#include "modules/init.h"
#include "modules/layer_norm.h"
#include "modules/layer_norm_cells.h"
#include "modules/linear.h"
#include "modules/lstm_variants.h"
#include "modules/module.h"
#include "modules/recurrent.h"
#include "modules/sampling.h"
#include "modules/sequential.h"
