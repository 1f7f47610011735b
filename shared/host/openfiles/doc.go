// Package openfiles divides the limit of open files (RLIMIT_NOFILE) among the parts of a
// member.
//
// A member that runs out of descriptors cannot start a follower, accept one, or open a
// segment of its log. So a member does not start if its limit is below Needed. Each
// listener gets a share of the limit. All shares and the member's own needs together stay
// within the limit. Clients' connections get what the others leave.
//
// The package needs getrlimit(2) and setrlimit(2). It keeps no state.
package openfiles
