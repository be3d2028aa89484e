/* What the policy observes, from the state of a vehicle and its target: frames, clips, the previous action.
 *
 * World: x and y horizontal, z up (right-handed; ENU, or any yaw). Body: x forward, y left, z up (FLU). Quaternions are
 * (w, x, y, z), from body to world. Rotors: front right, back right, back left, front left. m, s, rad. */
#ifndef RAPTOR_OBSERVATION_H
#define RAPTOR_OBSERVATION_H

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
    float position[3];
    float orientation[4];
    float linear_velocity[3];
    float angular_velocity[3]; /* body */
} raptor_state;

/* Where the vehicle should be. The policy sees errors in a frame that is turned by yaw about the vertical. */
typedef struct {
    float position[3];
    float linear_velocity[3];
    float yaw;
} raptor_target;

/* Bounds of each component of the errors; 0 or less: none. */
typedef struct {
    float position;
    float linear_velocity;
} raptor_limits;

/* The 22 numbers: position error 3, rotation matrix 9 (by rows), velocity error 3, angular velocity 3, action 4. */
void raptor_observe(const raptor_state *state, const raptor_target *target, const raptor_limits *limits,
                    const float previous_action[4], float observation[22]);

/* From north-east-down and forward-right-down, as in PX4, to this frame: turned by half a turn about x. */
void raptor_from_ned(raptor_state *state);

#ifdef __cplusplus
}
#endif

#endif
