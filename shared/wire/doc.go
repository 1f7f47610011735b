// Package wire is the protocol between members: the generated code of
// wire.proto and the conversions to and from the types of the core.
//
// Decoding is strict: an address that does not parse, a state that does not
// exist or a list that is too long is an error, never a panic, and no length
// read from the wire is allocated before its bytes are there.
package wire
