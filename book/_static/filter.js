// A search field and two lists above each table of the class "filterable"; without scripts the table is just long.
// An address that ends in ?rows=shampoo shows the rows with that word.
document.addEventListener("DOMContentLoaded", () => {
  for (const table of document.querySelectorAll(".filterable table")) {
    const rows = [...table.tBodies[0].rows];
    if (rows.length < 10) continue;
    const heads = [...table.tHead.rows[0].cells].map((cell) => cell.textContent.trim());
    const bar = document.createElement("form");
    bar.className = "filter";
    bar.addEventListener("submit", (event) => event.preventDefault());
    const labelled = (text, field) => {
      const label = bar.appendChild(document.createElement("label"));
      label.append(`${text} `, field);
      field.addEventListener("input", show);
      return field;
    };
    const words = Object.assign(document.createElement("input"), { type: "search", placeholder: "mix 300, shampoo, agrees ..." });
    words.value = new URLSearchParams(location.search).get("rows") ?? "";
    labelled("Rows with", words);
    const lists = ["set", "verdict"].filter((head) => heads.includes(head)).map((head) => {
      const column = heads.indexOf(head);
      const list = document.createElement("select");
      const values = new Set(rows.map((row) => row.cells[column].textContent.trim()).filter(Boolean));
      list.append(new Option("all", ""), ...[...values].sort().map((value) => new Option(value)));
      return [labelled(head, list), column];
    });
    const count = bar.appendChild(document.createElement("output"));
    function show() {
      const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
      for (const row of rows) {
        const text = row.textContent.toLowerCase().replaceAll("\u00a0", " ");
        const chosen = lists.every(([list, column]) => !list.value || row.cells[column].textContent.trim() === list.value);
        row.hidden = !(chosen && wanted.every((word) => text.includes(word)));
      }
      count.textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length} rows`;
    }
    table.before(bar);
    show();
  }
});
