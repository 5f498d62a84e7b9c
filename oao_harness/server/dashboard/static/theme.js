// Before the first paint: the theme that was chosen here last, else the system's.
(function () {
  "use strict";
  try {
    var chosen = localStorage.getItem("oao-theme");
    if (chosen === "dark" || chosen === "light") document.documentElement.dataset.theme = chosen;
  } catch (error) { /* no storage: the system's theme it is */ }
})();
