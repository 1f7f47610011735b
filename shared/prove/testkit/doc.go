// Package testkit has what the tests of several packages need: certificates, conditions to
// wait for, a service manager's socket, processes with pipes, HTTP requests. Only tests
// import it, of any wing.
//
// Every helper fails the test that calls it when something goes wrong, and releases with
// t.Cleanup what it opened.
package testkit
