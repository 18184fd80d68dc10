#pragma once
/// The front door: everything of unroll but the opt-in bridge to xtensor
/// (<unroll/framework/xtensor.h>).

#include "data/data.h"
#include "framework/framework.h"
#include "modules/modules.h"
#include "optim/optim.h"
