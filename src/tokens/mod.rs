//! A token's life: issue, rotate, narrow, revoke, and the policy that bounds it.
