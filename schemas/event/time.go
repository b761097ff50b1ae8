package event

import (
	"time"
)

// AppendTime appends t in its canonical form: UTC, nine fractional digits, as
// in 2026-01-02T03:04:05.000000000Z.
func AppendTime(dst []byte, t time.Time) []byte {
	t = t.UTC()
	year, month, day := t.Date()
	if year < 0 || year > 9999 {
		return t.AppendFormat(dst, "2006-01-02T15:04:05.000000000Z")
	}
	hour, minute, second := t.Clock()
	// Written out by hand, since it is done several times an event.
	const shape = "yyyy-mm-ddThh:mm:ss.nnnnnnnnnZ"
	at := len(dst)
	dst = append(dst, shape...)
	out := dst[at : at+len(shape)]
	twoDigits(out[0:], year/100)
	twoDigits(out[2:], year%100)
	twoDigits(out[5:], int(month))
	twoDigits(out[8:], day)
	twoDigits(out[11:], hour)
	twoDigits(out[14:], minute)
	twoDigits(out[17:], second)
	nanos := t.Nanosecond()
	out[20] = byte('0' + nanos/100_000_000)
	twoDigits(out[21:], nanos/1_000_000%100)
	twoDigits(out[23:], nanos/10_000%100)
	twoDigits(out[25:], nanos/100%100)
	twoDigits(out[27:], nanos%100)
	return dst
}

// pairs are the numbers 00 to 99, one after the other.
const pairs = "00010203040506070809" + "10111213141516171819" + "20212223242526272829" + "30313233343536373839" + "40414243444546474849" +
	"50515253545556575859" + "60616263646566676869" + "70717273747576777879" + "80818283848586878889" + "90919293949596979899"

func twoDigits(out []byte, n int) { copy(out[:2], pairs[2*n:2*n+2]) }

// ParseTime reads an RFC 3339 date-time with a zone and at most nine
// fractional digits and returns it in UTC. When s is not one, msg says why.
//
// It is stricter than time.Parse, which takes a comma before the fraction and
// silently drops digits after the ninth. RFC 3339 lets an application refuse t and z
// in lower case (section 5.6), as time.Parse does, too. A leap second (":60") is refused: no
// column could hold it.
func ParseTime(s string) (t time.Time, msg string) {
	const shape = "dddd-dd-ddTdd:dd:dd"
	if len(s) < len(shape) {
		return time.Time{}, "is not a date and time"
	}
	for i := range len(shape) {
		c, want := s[i], shape[i]
		switch {
		case want == 'T' && c == 't':
			return time.Time{}, "has a lower-case t between date and time: write T"
		case want == 'd' && (c < '0' || c > '9') || want != 'd' && c != want:
			return time.Time{}, "is not a date and time"
		}
	}
	if s[17:19] == "60" {
		return time.Time{}, "is a leap second, which cannot be stored"
	}
	rest, nanos := s[len(shape):], 0
	if rest != "" && rest[0] == '.' {
		n, unit := 1, 100_000_000
		for n < len(rest) && rest[n] >= '0' && rest[n] <= '9' {
			nanos += int(rest[n]-'0') * unit
			unit /= 10
			n++
		}
		if n == 1 {
			return time.Time{}, "has a fraction without digits"
		}
		if n > 10 {
			return time.Time{}, "has more than nine fractional digits"
		}
		rest = rest[n:]
	}
	switch rest {
	case "":
		return time.Time{}, "has no zone"
	case "z":
		return time.Time{}, "has a lower-case z for a zone: write Z"
	}
	ahead, ok := zone(rest)
	if !ok {
		return time.Time{}, "has no valid zone"
	}
	num := func(at int) int { return int(s[at]-'0')*10 + int(s[at+1]-'0') }
	year, month, day := num(0)*100+num(2), num(5), num(8)
	hour, minute, second := num(11), num(14), num(17)
	if hour > 23 || minute > 59 || second > 59 {
		return time.Time{}, "is no date that exists"
	}
	if month < 1 || month > 12 || day < 1 || day > daysOf(year, month) {
		return time.Time{}, "is no date that exists"
	}
	seconds := daysBefore(year, month, day)*86400 + int64(hour*3600+minute*60+second) - int64(ahead/time.Second)
	return time.Unix(seconds, int64(nanos)).UTC(), ""
}

// daysOf is how many days a month has.
func daysOf(year, month int) int {
	if month == 2 && year%4 == 0 && (year%100 != 0 || year%400 == 0) {
		return 29
	}
	return int("\x1f\x1c\x1f\x1e\x1f\x1e\x1f\x1f\x1e\x1f\x1e\x1f"[month-1])
}

// daysBefore is how many days lie between 1970 and a day, of the year 0 or later.
// It counts in years that begin in March, so that the day of a leap year is the
// last, and in cycles of 400 years, which have 146,097 days each.
func daysBefore(year, month, day int) int64 {
	if month -= 3; month < 0 {
		month += 12
		year--
	}
	year += 400 // the year 0 begins in March, too
	inYear := (153*month+2)/5 + day - 1
	return int64(year/400*146097+year%400*365+year%400/4-year%400/100+inYear) - 719468 - 146097
}

// zone returns what the local time of a zone, Z or a numeric offset within a
// day, is ahead of UTC.
func zone(s string) (time.Duration, bool) {
	if s == "Z" {
		return 0, true
	}
	if len(s) != 6 || s[0] != '+' && s[0] != '-' || s[3] != ':' {
		return 0, false
	}
	for _, i := range []int{1, 2, 4, 5} {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
	}
	if s[1:3] > "23" || s[4:6] > "59" {
		return 0, false
	}
	ahead := time.Duration(int(s[1]-'0')*10+int(s[2]-'0'))*time.Hour + time.Duration(int(s[4]-'0')*10+int(s[5]-'0'))*time.Minute
	if s[0] == '-' {
		ahead = -ahead
	}
	return ahead, true
}
