// Package wire is the protocol between members: the generated code of wire.proto, and the
// conversions to and from the types of the core.
//
// Decoding is strict. An address that does not parse, an unknown state or a list that is
// too long is an error and never a panic. No memory is allocated for a length on the wire
// before its bytes have arrived.
package wire
