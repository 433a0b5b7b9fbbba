"use strict";
(function () {
  var list = document.getElementById("group-list");
  if (list) {
    var query = document.getElementById("group-query");
    var counter = document.getElementById("group-count");
    var buttons = Array.prototype.slice.call(document.querySelectorAll("[data-show]"));
    var rows = Array.prototype.slice.call(list.querySelectorAll("tr"));
    var shown = "all";
    var refresh = function () {
      var wanted = query.value.trim().toLowerCase();
      var count = 0;
      rows.forEach(function (row) {
        var fits = (shown === "all" || row.dataset.status === shown) &&
          row.textContent.toLowerCase().indexOf(wanted) >= 0;
        row.hidden = !fits;
        count += fits ? 1 : 0;
      });
      counter.textContent = count + " of " + rows.length + " shown";
      buttons.forEach(function (button) {
        button.setAttribute("aria-pressed", String(button.dataset.show === shown));
      });
    };
    buttons.forEach(function (button) {
      button.addEventListener("click", function () { shown = button.dataset.show; refresh(); });
    });
    query.addEventListener("input", refresh);
    document.getElementById("group-filter").hidden = false;
    refresh();
  }
  window.addEventListener("beforeprint", function () {
    document.querySelectorAll("details").forEach(function (each) { each.open = true; });
  });
})();
