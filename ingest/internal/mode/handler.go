package mode

import (
	"encoding/json"
	"io"
	"mime"
	"net/http"

	strict "github.com/go-json-experiment/json"
)

// mostBytes bounds a request's body.
const mostBytes = 1024

// Handler answers GET with the switch's [State], and PUT {"mode":"sync"} by
// setting it; anything else changes nothing. PUT takes application/json alone,
// which no page of another origin can send without being asked.
func (s *Switch) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /mode", func(w http.ResponseWriter, _ *http.Request) { answer(w, s.State()) })
	mux.HandleFunc("PUT /mode", func(w http.ResponseWriter, r *http.Request) {
		const want = `send {"mode":"async"} or {"mode":"sync"} as application/json`
		if media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || media != "application/json" {
			http.Error(w, want, http.StatusUnsupportedMediaType)
			return
		}
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, mostBytes))
		if err != nil {
			http.Error(w, want+": "+err.Error(), http.StatusBadRequest)
			return
		}
		var asked struct {
			Mode string `json:"mode"`
		}
		if err := strict.Unmarshal(body, &asked, strict.RejectUnknownMembers(true)); err != nil {
			http.Error(w, want+": "+err.Error(), http.StatusBadRequest)
			return
		}
		m, err := Parse(asked.Mode)
		if err != nil {
			http.Error(w, want+": "+err.Error(), http.StatusBadRequest)
			return
		}
		answer(w, s.Set(m, "admin"))
	})
	return mux
}

func answer(w http.ResponseWriter, s State) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(s) // the client has left
}
