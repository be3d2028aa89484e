/* When to run the policy: at a rate of one's own, whatever the rate of the control loop.
 *
 * Native steps, the rate that the policy was trained at, move the memory on. Steps between them are computed with a
 * copy of it that is thrown away, so that the motors follow the newest observation. The previous action that the policy
 * sees is the mean of what was fed back since the last native step. Time is in microseconds. */
#ifndef RAPTOR_EXECUTOR_H
#define RAPTOR_EXECUTOR_H

#include <stdbool.h>
#include <stdint.h>

#include "raptor_policy.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { RAPTOR_WINDOW = 100 }; /* intervals that timing is judged by */

typedef struct {
    uint32_t native_us;        /* between two native steps: 10000 */
    uint32_t intermediate_us;  /* between two steps of any kind at least */
    uint32_t native_every;     /* steps from one native step to the next; 0: by time */
    bool every_call;           /* a step at each call */
    float tolerance_low, tolerance_high; /* that an interval may be of the one wanted: 0.8 and 1.2 */
    float initial_previous_action;       /* seen after a reset, where nothing was fed back: 0 (PX4), 0.32, -1 */
} raptor_timing;

typedef enum {
    RAPTOR_NO_STEP,           /* too early: the last action stands */
    RAPTOR_INTERMEDIATE_STEP, /* on a copy of the memory */
    RAPTOR_NATIVE_STEP
} raptor_step_kind;

/* Intervals of one kind of step. */
typedef struct {
    uint32_t intervals[RAPTOR_WINDOW];
    uint32_t count; /* that were noted, also those that are overwritten */
} raptor_clock;

typedef struct {
    raptor_step_kind step;
    bool valid;         /* false: the time ran backwards; there is no action */
    bool jitter;        /* an interval among the last RAPTOR_WINDOW is out of tolerance */
    bool biased;        /* their mean is */
    float worst;        /* the first such interval, and the mean, in units of what is wanted; 0 while unknown */
    float mean;
} raptor_status;

typedef struct {
    raptor_timing timing;
    raptor_memory memory;
    raptor_clock native, intermediate;
    uint64_t observed, controlled, advanced; /* times of the last call, step and native step */
    uint32_t num_steps;
    bool begun;
    float previous_action[RAPTOR_ACTION_DIM]; /* mean since the last native step */
    uint32_t num_previous;
} raptor_executor;

void raptor_executor_begin(raptor_executor *executor, const raptor_timing *timing);

/* Forget all but the timing. */
void raptor_executor_reset(raptor_executor *executor);

/* At time now: `fed_back` is the action that the motors had last, NULL if it is not known. The observation's places for
 * the previous action are filled in. The action is clipped to [-1, 1]; it is untouched unless there was a step. */
raptor_status raptor_executor_step(raptor_executor *executor, uint64_t now, float observation[RAPTOR_OBSERVATION_DIM],
                                   const float *fed_back, float action[RAPTOR_ACTION_DIM]);

#ifdef __cplusplus
}
#endif

#endif
