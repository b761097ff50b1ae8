// Package failure says what an error of Kafka or ClickHouse means for the
// partition that met it. It is the one place where that is decided.
package failure

import (
	"context"
	"errors"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/twmb/franz-go/pkg/kerr"
)

// Class is what an error means.
type Class int

const (
	// Away: the other side can't do it now, or it is unknown whether it did:
	// recover by comparison, and go on trying. Every unknown error is this one,
	// so that no misunderstanding costs a record.
	Away Class = iota
	// Halt: trying again won't help until a person has mended something.
	Halt
	// Refused: ClickHouse understood the block and says that a value in it
	// can't be stored. Only an INSERT of rows is answered so.
	Refused
	// Over: the partition is no longer ours; nothing more may be written.
	Over
)

// String is the class as metrics and logs name it.
func (c Class) String() string {
	switch c {
	case Halt:
		return "halt"
	case Refused:
		return "refused"
	case Over:
		return "over"
	case Away:
	}
	return "away"
}

var (
	// ErrOver ends an incarnation: the assignment it was made for is over.
	ErrOver = errors.New("the partition's assignment to this member is over")
	// ErrMend is in the chain of errors that only a person can mend.
	ErrMend = errors.New("this will not mend itself")
)

// Of classifies err, which must not be nil.
func Of(err error) Class {
	switch {
	case errors.Is(err, ErrOver):
		return Over
	case errors.Is(err, ErrMend):
		return Halt
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return Away
	}
	if ex := (*clickhouse.Exception)(nil); errors.As(err, &ex) {
		return ofClickHouse(ex.Code)
	}
	if ke := (*kerr.Error)(nil); errors.As(err, &ke) {
		return ofKafka(ke)
	}
	return Away
}

// ofClickHouse goes by the codes of
// https://github.com/ClickHouse/ClickHouse/blob/master/src/Common/ErrorCodes.cpp
func ofClickHouse(code int32) Class {
	switch code {
	case 6, // CANNOT_PARSE_TEXT
		26,  // CANNOT_PARSE_QUOTED_STRING
		27,  // CANNOT_PARSE_INPUT_ASSERTION_FAILED
		38,  // CANNOT_PARSE_DATE
		41,  // CANNOT_PARSE_DATETIME
		69,  // ARGUMENT_OUT_OF_BOUND
		72,  // CANNOT_PARSE_NUMBER
		117, // INCORRECT_DATA
		128, // TOO_LARGE_ARRAY_SIZE
		131, // TOO_LARGE_STRING_SIZE
		321, // VALUE_IS_OUT_OF_RANGE_OF_DATA_TYPE
		349, // CANNOT_INSERT_NULL_IN_ORDINARY_COLUMN
		376, // CANNOT_PARSE_UUID
		407, // DECIMAL_OVERFLOW
		467, // CANNOT_PARSE_BOOL
		469, // VIOLATED_CONSTRAINT
		691: // UNKNOWN_ELEMENT_OF_ENUM
		return Refused
	case 8, // THERE_IS_NO_COLUMN
		10,  // NOT_FOUND_COLUMN_IN_BLOCK
		16,  // NO_SUCH_COLUMN_IN_TABLE
		20,  // NUMBER_OF_COLUMNS_DOESNT_MATCH
		44,  // ILLEGAL_COLUMN
		47,  // UNKNOWN_IDENTIFIER
		50,  // UNKNOWN_TYPE
		53,  // TYPE_MISMATCH
		60,  // UNKNOWN_TABLE
		62,  // SYNTAX_ERROR
		70,  // CANNOT_CONVERT_TYPE
		81,  // UNKNOWN_DATABASE
		115, // UNKNOWN_SETTING
		192, // UNKNOWN_USER
		193, // WRONG_PASSWORD
		452, // SETTING_CONSTRAINT_VIOLATION
		497, // ACCESS_DENIED
		516: // AUTHENTICATION_FAILED
		return Halt
	}
	return Away
}

func ofKafka(err *kerr.Error) Class {
	switch err.Code {
	case kerr.TopicAuthorizationFailed.Code, kerr.GroupAuthorizationFailed.Code,
		kerr.ClusterAuthorizationFailed.Code, kerr.SaslAuthenticationFailed.Code,
		kerr.InvalidTopicException.Code, kerr.MessageTooLarge.Code, kerr.OffsetMetadataTooLarge.Code,
		kerr.FencedInstanceID.Code:
		return Halt
	}
	return Away
}

// Regrouping tells that a commit failed only because the group is between two
// generations: the same commit may be sent again, for as long as the incarnation
// it belongs to lasts.
func Regrouping(err error) bool {
	return errors.Is(err, kerr.RebalanceInProgress) || errors.Is(err, kerr.IllegalGeneration) || errors.Is(err, kerr.StaleMemberEpoch)
}
