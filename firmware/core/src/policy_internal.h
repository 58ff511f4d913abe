/* What the policy_*.c files share; not for other files. */
#ifndef DRIP_POLICY_INTERNAL_H
#define DRIP_POLICY_INTERNAL_H

#include "drip/policy.h"

enum { BEHIND_MOST = 64 * 65536 /* frames short of the target, x 65536: no more is made up for */ };

/* Forgets what was learned of a model and its classes. */
void drip_policy_forget(drip_policy_t *policy);

/* Whether the present picture is nearer than `least`, 0..65536, to one in the ring. */
int drip_policy_seen(const drip_policy_t *policy, uint32_t least);

/* Looks at the drift statistics after a decision. */
void drip_policy_drift(drip_policy_t *policy, const drip_score_t *score);

#endif
