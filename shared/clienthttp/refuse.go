package clienthttp

import (
	"bytes"
	"io"
	"net"
	"strconv"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/codes"
)

const (
	// maxRefusing bounds the connections that are being told why they are refused;
	// others are closed without a word.
	maxRefusing   = 32
	refuseTimeout = time.Second
)

// refusal is what a client is told for whom there is no place.
const refusal = "dynast: too many connections (client.max_connections)"

// refuse tells a client why it is not served, in its own protocol. Over TLS it
// would cost a handshake, which is what there is too much of.
func (s *Split) refuse(c net.Conn) {
	select {
	case s.refusing <- struct{}{}:
	default:
		_ = c.Close()
		return
	}
	go func() {
		defer func() { _ = c.Close(); <-s.refusing }()
		_ = c.SetDeadline(time.Now().Add(refuseTimeout))
		if s.tls == nil {
			answerFull(c)
		}
	}()
}

func answerFull(c net.Conn) {
	is2, err := beginsWith(c, preface)
	switch {
	case err != nil:
		return
	case is2:
		if err := answerFirstRequest(c); err != nil {
			return
		}
	default:
		if _, err := io.WriteString(c, "HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain\r\nConnection: close\r\nRetry-After: 1\r\n\r\n"+refusal+"\n"); err != nil {
			return
		}
	}
	// A close with unread bytes is a reset, which can overtake the answer.
	if t, ok := c.(*net.TCPConn); ok {
		_ = t.CloseWrite()
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(c, 64<<10))
}

// answerFirstRequest speaks as much HTTP/2 as it takes to answer the first gRPC
// request with a status; what a client is told in a GOAWAY, its user never
// sees. Unavailable is what clients come back after, watchers too.
func answerFirstRequest(c net.Conn) error {
	if _, err := io.CopyN(io.Discard, c, int64(len(http2.ClientPreface))); err != nil {
		return err
	}
	f := http2.NewFramer(c, c)
	f.SetMaxReadFrameSize(maxHeaderBytes)
	if err := f.WriteSettings(); err != nil {
		return err
	}
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			return err
		}
		id := frame.Header().StreamID
		switch frame := frame.(type) {
		case *http2.SettingsFrame:
			if !frame.IsAck() {
				if err := f.WriteSettingsAck(); err != nil {
					return err
				}
			}
		case *http2.HeadersFrame:
			err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: unavailable(), EndHeaders: true, EndStream: true})
			if err != nil {
				return err
			}
			return f.WriteGoAway(id, http2.ErrCodeEnhanceYourCalm, []byte(refusal))
		}
	}
}

// unavailable are the headers of a gRPC answer that has no content.
func unavailable() []byte {
	var b bytes.Buffer
	e := hpack.NewEncoder(&b)
	for _, h := range []hpack.HeaderField{
		{Name: ":status", Value: "200"}, {Name: "content-type", Value: "application/grpc"},
		{Name: "grpc-status", Value: strconv.Itoa(int(codes.Unavailable))}, {Name: "grpc-message", Value: refusal},
	} {
		_ = e.WriteField(h) // into memory
	}
	return b.Bytes()
}
