#pragma once
/// Everything that feeds a sequence model.

#include "data/batch_iterator.h"
#include "data/conll.h"
#include "data/csv.h"
#include "data/labelled.h"
#include "data/metrics.h"
#include "data/ngram.h"
#include "data/padded.h"
#include "data/pairs.h"
#include "data/pictures.h"
#include "data/sequences.h"
#include "data/series.h"
#include "data/split.h"
#include "data/stream.h"
#include "data/text.h"
#include "data/vocab.h"
