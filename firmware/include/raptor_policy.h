/* The policy: one step of the network whose weights stand in raptor_weights.h. No allocation, no other library. */
#ifndef RAPTOR_POLICY_H
#define RAPTOR_POLICY_H

#include "raptor_weights.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What the policy remembers from step to step; RAPTOR_MEMORY_DIM is 0 for a policy without memory. */
typedef struct {
    float hidden[RAPTOR_MEMORY_DIM > 0 ? RAPTOR_MEMORY_DIM : 1];
} raptor_memory;

/* The memory at a start. */
void raptor_reset(raptor_memory *memory);

/* One step: the action that the observation leads to, as the network gives it (not clipped); memory moves on. */
void raptor_step(raptor_memory *memory, const float observation[RAPTOR_OBSERVATION_DIM],
                 float action[RAPTOR_ACTION_DIM]);

/* Motor commands in [0, 1] from actions, whatever these are: clipped, and 0 where one is not a number. */
void raptor_motors(const float action[RAPTOR_ACTION_DIM], float motor[RAPTOR_ACTION_DIM]);

/* The largest difference between the stored actions and those for the stored observations; above 1e-4, do not fly. */
float raptor_self_test(void);

#ifdef __cplusplus
}
#endif

#endif
