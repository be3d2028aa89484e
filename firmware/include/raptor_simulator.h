/* One step of a simulated quadrotor, for hardware in the loop and for the browser: rigid body, first-order rotors,
 * one Runge-Kutta step of fourth order; the same as raptor.quadrotor.step. Frames and rotors as in
 * raptor_observation.h. */
#ifndef RAPTOR_SIMULATOR_H
#define RAPTOR_SIMULATOR_H

#ifdef __cplusplus
extern "C" {
#endif

enum { RAPTOR_ROTORS = 4, RAPTOR_STATE_DIM = 17, RAPTOR_VEHICLE_DIM = 84 };

/* A vehicle as RAPTOR_VEHICLE_DIM numbers in a row, in this order. SI units; per rotor where it says so. */
typedef struct {
    float mass;
    float gravity[3];
    float inertia[9];
    float inertia_inverse[9];
    float rotor_position[RAPTOR_ROTORS][3];
    float rotor_thrust_direction[RAPTOR_ROTORS][3];
    float rotor_torque_direction[RAPTOR_ROTORS][3];
    float rotor_thrust_coefficient[RAPTOR_ROTORS][3]; /* N = c0 + c1 s + c2 s^2 at speed s */
    float rotor_torque_constant[RAPTOR_ROTORS];       /* N m per N */
    float rotor_time_constant_rising[RAPTOR_ROTORS];
    float rotor_time_constant_falling[RAPTOR_ROTORS];
    float action_limit[2]; /* rotor speeds of the actions -1 and 1 */
} raptor_vehicle;

/* Position 3, orientation 4, linear velocity 3, angular velocity 3 (body), rotor speed 4. */
void raptor_simulate(const raptor_vehicle *vehicle, float state[RAPTOR_STATE_DIM], const float action[RAPTOR_ROTORS],
                     const float force[3], const float torque[3], float dt);

#ifdef __cplusplus
}
#endif

#endif
