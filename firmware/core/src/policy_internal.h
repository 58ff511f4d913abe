/* What the policy_*.c files share; not for other files. */
#ifndef DRIP_POLICY_INTERNAL_H
#define DRIP_POLICY_INTERNAL_H

#include "drip/policy.h"

enum { BEHIND_MOST = 64 * 65536 /* frames short of the target, x 65536: no more is made up for */ };

/* Forgets what was learned of a model and its classes. */
void drip_policy_forget(drip_policy_t *policy);

/* Whether two pictures are nearer than `least`, 1..65535: drip_policy_distance, but it stops when it
 * knows. */
int drip_policy_alike(const drip_thumb_t *a, const drip_thumb_t *b, uint32_t cells, uint32_t least);

/* Looks at the drift statistics after a decision. */
void drip_policy_drift(drip_policy_t *policy, const drip_score_t *score);

#endif
