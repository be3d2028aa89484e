#include "raptor_observation.h"

#include <math.h>

#include "raptor_math.h"

static float bounded(float x, float limit) { return limit > 0.0f ? raptor_clip(x, -limit, limit) : x; }

void raptor_observe(const raptor_state *state, const raptor_target *target, const raptor_limits *limits,
                    const float previous_action[4], float observation[22])
{
    const float *q = state->orientation;
    const float half = 0.5f * target->yaw, c = cosf(half), s = sinf(half);
    /* Turned back by the yaw of the target: (c, 0, 0, -s) times q. */
    const float w = c * q[0] + s * q[3], x = c * q[1] + s * q[2], y = c * q[2] - s * q[1], z = c * q[3] - s * q[0];
    const float cosine = c * c - s * s, sine = 2.0f * c * s;
    float position[3], velocity[3];
    int i;
    for (i = 0; i < 3; i++) {
        position[i] = state->position[i] - target->position[i];
        velocity[i] = state->linear_velocity[i] - target->linear_velocity[i];
    }
    observation[0] = bounded(cosine * position[0] + sine * position[1], limits->position);
    observation[1] = bounded(cosine * position[1] - sine * position[0], limits->position);
    observation[2] = bounded(position[2], limits->position);
    observation[3] = 1.0f - 2.0f * (y * y + z * z);
    observation[4] = 2.0f * (x * y - w * z);
    observation[5] = 2.0f * (x * z + w * y);
    observation[6] = 2.0f * (x * y + w * z);
    observation[7] = 1.0f - 2.0f * (x * x + z * z);
    observation[8] = 2.0f * (y * z - w * x);
    observation[9] = 2.0f * (x * z - w * y);
    observation[10] = 2.0f * (y * z + w * x);
    observation[11] = 1.0f - 2.0f * (x * x + y * y);
    observation[12] = bounded(cosine * velocity[0] + sine * velocity[1], limits->linear_velocity);
    observation[13] = bounded(cosine * velocity[1] - sine * velocity[0], limits->linear_velocity);
    observation[14] = bounded(velocity[2], limits->linear_velocity);
    for (i = 0; i < 3; i++) observation[15 + i] = state->angular_velocity[i];
    for (i = 0; i < 4; i++) observation[18 + i] = previous_action[i];
}

void raptor_from_ned(raptor_state *state)
{
    int i;
    for (i = 1; i < 3; i++) {
        state->position[i] = -state->position[i];
        state->linear_velocity[i] = -state->linear_velocity[i];
        state->angular_velocity[i] = -state->angular_velocity[i];
        state->orientation[i + 1] = -state->orientation[i + 1];
    }
}
