#include "raptor_executor.h"

#include <stddef.h>
#include <string.h>

#include "raptor_math.h"

enum { A = RAPTOR_ACTION_DIM, PREVIOUS = RAPTOR_PREVIOUS_ACTION };

void raptor_executor_begin(raptor_executor *executor, const raptor_timing *timing)
{
    executor->timing = *timing;
    raptor_executor_reset(executor);
}

void raptor_executor_reset(raptor_executor *executor)
{
    const raptor_timing timing = executor->timing;
    int i;
    memset(executor, 0, sizeof *executor);
    executor->timing = timing;
    raptor_reset(&executor->memory);
    for (i = 0; i < A; i++) executor->previous_action[i] = timing.initial_previous_action;
}

static void note(raptor_clock *clock, uint64_t interval)
{
    clock->intervals[clock->count % RAPTOR_WINDOW] = interval > UINT32_MAX ? UINT32_MAX : (uint32_t)interval;
    clock->count++;
}

/* Judge the intervals of a kind, of which so many microseconds are wanted, once the window is full. */
static void judge(const raptor_clock *clock, float wanted, const raptor_timing *timing, raptor_status *status)
{
    float sum = 0.0f;
    int i;
    if (clock->count < RAPTOR_WINDOW) return;
    for (i = 0; i < RAPTOR_WINDOW; i++) {
        const float ratio = (float)clock->intervals[i] / wanted;
        sum += ratio;
        if (status->jitter || (ratio >= timing->tolerance_low && ratio <= timing->tolerance_high)) continue;
        status->jitter = true;
        status->worst = ratio;
    }
    status->mean = sum / (float)RAPTOR_WINDOW;
    status->biased = status->mean < timing->tolerance_low || status->mean > timing->tolerance_high;
}

/* Add what was fed back to the mean since the last native step. */
static void remember(raptor_executor *executor, const float *fed_back)
{
    const float n = (float)executor->num_previous;
    int i;
    if (fed_back == NULL) return;
    for (i = 0; i < A; i++) {
        float *mean = executor->previous_action + i;
        *mean = executor->num_previous == 0 ? fed_back[i] : (*mean * n + fed_back[i]) / (n + 1.0f);
    }
    executor->num_previous++;
}

raptor_status raptor_executor_step(raptor_executor *executor, uint64_t now, float observation[RAPTOR_OBSERVATION_DIM],
                                   const float *fed_back, float action[RAPTOR_ACTION_DIM])
{
    const raptor_timing *timing = &executor->timing;
    raptor_status status = {RAPTOR_NO_STEP, true, false, false, 0.0f, 0.0f};
    const bool first = !executor->begun;
    bool native;
    int i;
    if (first) {
        executor->begun = true;
        executor->observed = executor->controlled = executor->advanced = now;
    }
    if (now < executor->observed || now < executor->controlled) {
        executor->observed = executor->controlled = executor->advanced = now;
        status.valid = false;
        return status;
    }
    executor->observed = now;
    remember(executor, fed_back);
    if (!first && !timing->every_call && now - executor->controlled < timing->intermediate_us) return status;
    if (!first) note(&executor->intermediate, now - executor->controlled);
    executor->controlled = now;
    native = first || (timing->native_every != 0 ? executor->num_steps % timing->native_every == 0
                                                 : now - executor->advanced >= timing->native_us);
    for (i = 0; i < A; i++) observation[PREVIOUS + i] = executor->previous_action[i];
    if (native) {
        if (!first) note(&executor->native, now - executor->advanced);
        executor->advanced = now;
        executor->num_previous = 0;
        raptor_step(&executor->memory, observation, action);
        status.step = RAPTOR_NATIVE_STEP;
        judge(&executor->native, (float)timing->native_us, timing, &status);
    } else {
        raptor_memory copy = executor->memory;
        raptor_step(&copy, observation, action);
        status.step = RAPTOR_INTERMEDIATE_STEP;
        judge(&executor->intermediate, timing->native_every != 0 ? (float)timing->native_us / (float)timing->native_every
                                                                 : (float)timing->intermediate_us, timing, &status);
    }
    for (i = 0; i < A; i++) action[i] = raptor_clip(action[i], -1.0f, 1.0f);
    executor->num_steps++;
    return status;
}
