#include "raptor_simulator.h"

#include <math.h>

#include "raptor_math.h"

enum { ORIENTATION = 3, VELOCITY = 7, RATES = 10, SPEED = 13 };

static const float STATE_LIMIT = 1e5f; /* of position, velocity and rates after a step */

static void cross(const float a[3], const float b[3], float c[3])
{
    c[0] = a[1] * b[2] - a[2] * b[1];
    c[1] = a[2] * b[0] - a[0] * b[2];
    c[2] = a[0] * b[1] - a[1] * b[0];
}

static void times(const float m[9], const float v[3], float y[3])
{
    int i;
    for (i = 0; i < 3; i++) y[i] = m[3 * i] * v[0] + m[3 * i + 1] * v[1] + m[3 * i + 2] * v[2];
}

static void derivative(const raptor_vehicle *v, const float y[RAPTOR_STATE_DIM], const float setpoint[RAPTOR_ROTORS],
                       const float force[3], const float torque[3], float slope[RAPTOR_STATE_DIM])
{
    const float *q = y + ORIENTATION, *omega = y + RATES;
    float thrust[3] = {0.0f, 0.0f, 0.0f}, moment[3] = {torque[0], torque[1], torque[2]}, lever[3], turned[3], spin[3];
    int i, j;
    for (i = 0; i < RAPTOR_ROTORS; i++) {
        const float *c = v->rotor_thrust_coefficient[i], speed = y[SPEED + i];
        const float newton = c[0] + speed * (c[1] + speed * c[2]);
        const float tau = setpoint[i] >= speed ? v->rotor_time_constant_rising[i] : v->rotor_time_constant_falling[i];
        cross(v->rotor_position[i], v->rotor_thrust_direction[i], lever);
        for (j = 0; j < 3; j++) {
            thrust[j] += newton * v->rotor_thrust_direction[i][j];
            moment[j] += newton * (lever[j] + v->rotor_torque_constant[i] * v->rotor_torque_direction[i][j]);
        }
        slope[SPEED + i] = (setpoint[i] - speed) / tau;
    }
    /* Turned by q: v + 2 w (u x v) + 2 u x (u x v), u = (x, y, z). */
    cross(q + 1, thrust, turned);
    cross(q + 1, turned, lever);
    for (j = 0; j < 3; j++) {
        slope[j] = y[VELOCITY + j];
        slope[VELOCITY + j] =
            (thrust[j] + 2.0f * (q[0] * turned[j] + lever[j]) + force[j]) / v->mass + v->gravity[j];
    }
    slope[ORIENTATION] = -0.5f * (q[1] * omega[0] + q[2] * omega[1] + q[3] * omega[2]);
    slope[ORIENTATION + 1] = 0.5f * (q[0] * omega[0] + q[2] * omega[2] - q[3] * omega[1]);
    slope[ORIENTATION + 2] = 0.5f * (q[0] * omega[1] + q[3] * omega[0] - q[1] * omega[2]);
    slope[ORIENTATION + 3] = 0.5f * (q[0] * omega[2] + q[1] * omega[1] - q[2] * omega[0]);
    times(v->inertia, omega, spin);
    cross(omega, spin, lever);
    for (j = 0; j < 3; j++) moment[j] -= lever[j];
    times(v->inertia_inverse, moment, slope + RATES);
}

static void ahead(const float y[RAPTOR_STATE_DIM], const float slope[RAPTOR_STATE_DIM], float time,
                  float moved[RAPTOR_STATE_DIM])
{
    int i;
    for (i = 0; i < RAPTOR_STATE_DIM; i++) moved[i] = y[i] + time * slope[i];
}

void raptor_simulate(const raptor_vehicle *v, float state[RAPTOR_STATE_DIM], const float action[RAPTOR_ROTORS],
                     const float force[3], const float torque[3], float dt)
{
    const float low = v->action_limit[0], high = v->action_limit[1], half = (high - low) / 2.0f;
    float setpoint[RAPTOR_ROTORS], y[RAPTOR_STATE_DIM], slope[RAPTOR_STATE_DIM], sum[RAPTOR_STATE_DIM], norm;
    float *q = state + ORIENTATION;
    int i;
    for (i = 0; i < RAPTOR_ROTORS; i++) setpoint[i] = raptor_clip(action[i], -1.0f, 1.0f) * half + (low + half);
    derivative(v, state, setpoint, force, torque, sum);
    ahead(state, sum, dt / 2.0f, y);
    derivative(v, y, setpoint, force, torque, slope);
    for (i = 0; i < RAPTOR_STATE_DIM; i++) sum[i] += 2.0f * slope[i];
    ahead(state, slope, dt / 2.0f, y);
    derivative(v, y, setpoint, force, torque, slope);
    for (i = 0; i < RAPTOR_STATE_DIM; i++) sum[i] += 2.0f * slope[i];
    ahead(state, slope, dt, y);
    derivative(v, y, setpoint, force, torque, slope);
    for (i = 0; i < RAPTOR_STATE_DIM; i++) state[i] += dt / 6.0f * (sum[i] + slope[i]);
    norm = 1.0f / sqrtf(q[0] * q[0] + q[1] * q[1] + q[2] * q[2] + q[3] * q[3]);
    for (i = 0; i < 4; i++) q[i] *= norm;
    for (i = 0; i < SPEED; i++)
        if (i < ORIENTATION || i >= VELOCITY) state[i] = raptor_clip(state[i], -STATE_LIMIT, STATE_LIMIT);
    for (i = 0; i < RAPTOR_ROTORS; i++) state[SPEED + i] = raptor_clip(state[SPEED + i], low, high);
}
