// Package operate serves operators: commands (the admin socket), the dashboard in the browser,
// the service manager, processes that want to join, and the control service through which a
// leader controls its followers.
//
// Its handlers hand an event to the loop and wait for the answer. Package shared/rules/core
// decides about each request. Users who may enter the data directory may look. Only the user
// who runs the cluster, and root, may change something.
package operate
