(function () {
  "use strict";
  var root = document.documentElement;

  document.getElementById("theme").addEventListener("click", function () {
    var dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  });

  function key(row, column) {
    var cell = row.cells[column], raw = cell.dataset.value;
    if (raw === undefined) return null;
    var number = Number(raw);
    return raw !== "" && !isNaN(number) ? number : raw;
  }

  function sort(table, column, head) {
    var down = head.getAttribute("aria-sort") === "ascending";
    table.querySelectorAll("th").forEach(function (other) { other.removeAttribute("aria-sort"); });
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    var body = table.tBodies[0], rows = Array.from(body.rows);
    rows.sort(function (a, b) {
      var x = key(a, column), y = key(b, column);
      if (x === null || y === null) return (x === null) - (y === null);
      var order = typeof x === "number" && typeof y === "number" ? x - y : String(x).localeCompare(String(y));
      return down ? -order : order;
    });
    rows.forEach(function (row) { body.appendChild(row); });
  }

  document.querySelectorAll("table.sortable").forEach(function (table) {
    Array.from(table.tHead.rows[0].cells).forEach(function (head, column) {
      head.tabIndex = 0;
      head.addEventListener("click", function () { sort(table, column, head); });
      head.addEventListener("keydown", function (event) {
        if (event.key === "Enter" || event.key === " ") { event.preventDefault(); sort(table, column, head); }
      });
    });
  });

  // No column is cut off: a table that is too wide is set tighter, and then row by row, each value beside its name.
  function fit() {
    document.querySelectorAll(".scroll").forEach(function (frame) {
      var table = frame.querySelector("table");
      table.classList.remove("tight", "stacked");
      ["tight", "stacked"].forEach(function (way) {
        if (frame.scrollWidth > frame.clientWidth) table.classList.add(way);
      });
    });
  }
  fit();
  addEventListener("resize", fit);
  document.querySelectorAll("details").forEach(function (part) { part.addEventListener("toggle", fit); });

  var tip = document.getElementById("tip");
  function place(x, y) {
    tip.style.left = Math.max(6, Math.min(x + 12, innerWidth - tip.offsetWidth - 6)) + "px";
    tip.style.top = (y + 18 + tip.offsetHeight > innerHeight ? y - tip.offsetHeight - 10 : y + 18) + "px";
  }
  function show(mark, x, y) {
    tip.textContent = mark.dataset.tip;
    tip.hidden = false;
    place(x, y);
    var row = mark.dataset.row && document.getElementById(mark.dataset.row);
    if (row) row.classList.add("hot");
  }
  function hide(mark) {
    tip.hidden = true;
    var row = mark.dataset.row && document.getElementById(mark.dataset.row);
    if (row) row.classList.remove("hot");
  }
  document.querySelectorAll("[data-tip]").forEach(function (mark) {
    var title = mark.querySelector("title");
    if (title) { mark.setAttribute("aria-label", title.textContent); title.remove(); }
    mark.addEventListener("pointermove", function (event) { show(mark, event.clientX, event.clientY); });
    mark.addEventListener("pointerleave", function () { hide(mark); });
    mark.addEventListener("focus", function () {
      var box = mark.getBoundingClientRect();
      show(mark, box.right, box.top);
    });
    mark.addEventListener("blur", function () { hide(mark); });
  });

  var points = {};
  document.querySelectorAll("[data-row]").forEach(function (mark) {
    (points[mark.dataset.row] = points[mark.dataset.row] || []).push(mark);
  });
  Object.keys(points).forEach(function (id) {
    var row = document.getElementById(id);
    if (!row) return;
    function light(on) { points[id].forEach(function (mark) { mark.classList.toggle("hot", on); }); }
    row.addEventListener("pointerenter", function () { light(true); });
    row.addEventListener("pointerleave", function () { light(false); });
  });

  addEventListener("beforeprint", function () {
    document.querySelectorAll("details").forEach(function (part) { part.open = true; });
  });

  if ("IntersectionObserver" in window) {
    var links = {};
    document.querySelectorAll("nav a").forEach(function (link) { links[link.hash.slice(1)] = link; });
    var watch = new IntersectionObserver(function (entries) {
      entries.forEach(function (entry) { links[entry.target.id].classList.toggle("here", entry.isIntersecting); });
    }, { rootMargin: "-30% 0px -60% 0px" });
    document.querySelectorAll("section.card").forEach(function (section) { watch.observe(section); });
  }
})();
