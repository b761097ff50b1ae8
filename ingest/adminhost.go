package main

import (
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// ownHost keeps pages in browsers off the admin port's switches when they come
// under a name that the port does not have. Whoever has a domain can make it lead
// to this machine once their page is open there (DNS rebinding); to the browser
// the port is then of the page's own origin, and no check of origins refuses it.
// The request still names that domain. A browser gives every request that changes
// something an Origin; those of commands, which have none, may come by any name.
func ownHost(address string, next http.Handler) http.Handler {
	own, _, err := net.SplitHostPort(address)
	if err != nil {
		own = ""
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.Method {
		case http.MethodGet, http.MethodHead, http.MethodOptions:
		default:
			if r.Header.Get("Origin") != "" && !ourName(r.Host, own) {
				http.Error(w, "a page may use this switch by an address, localhost or the name in admin.address, not as "+r.Host, http.StatusForbidden)
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}

// ourName tells whether no one else can make host lead here.
func ourName(host, own string) bool {
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	name = strings.Trim(name, "[]")
	if _, err := netip.ParseAddr(name); err == nil {
		return true
	}
	return strings.EqualFold(name, "localhost") || own != "" && strings.EqualFold(name, own)
}
