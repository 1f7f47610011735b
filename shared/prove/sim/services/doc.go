// Package services runs the rules for the user's services on a simulated host: with programs that
// exit, crash, hang, fork daemons and close their descriptors, and with leaders that die between
// any two effects. An oracle checks every step; see oracle.go for what it checks.
//
// A run is determined by its seed.
package services
