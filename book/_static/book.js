// What the theme leaves undone for screen readers, and an order of search results in which chapters come first.
document.addEventListener("DOMContentLoaded", () => {
  for (const summary of document.querySelectorAll(".bd-links summary")) {
    const chapter = summary.closest("li").querySelector("a").textContent.trim();
    summary.setAttribute("aria-label", `Pages under ${chapter}`);
  }
  if (typeof Scorer !== "undefined") {
    const words = (new URLSearchParams(location.search).get("q") ?? "").trim().toLowerCase();
    Scorer.score = ([, title, anchor, , score]) => {
      if (anchor.startsWith("#term-")) return Math.min(score, 14); // the glossary: below titles, above texts
      return !anchor && title.toLowerCase().includes(words) ? score + 50 : score;
    };
  }
});
