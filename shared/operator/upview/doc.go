// Package upview prints what happens in a cluster on the terminal of 'dynast up': a banner, and
// then one line of at most 80 columns for each event that a person wants to know. It reads the
// events in the data directory, so it follows the cluster whichever process leads.
package upview
