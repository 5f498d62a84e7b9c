// What htmx does not: theme, times in words, the drawer, copying. Nothing here makes markup of data.
(function () {
  "use strict";
  var root = document.documentElement;

  function isDark() {
    return (root.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  }

  function ago(seconds) {
    if (seconds < 0) return "in " + span(-seconds);
    return seconds < 5 ? "just now" : span(seconds) + " ago";
  }

  function span(seconds) {
    if (seconds < 60) return Math.floor(seconds) + " s";
    if (seconds < 3600) return Math.floor(seconds / 60) + " min";
    if (seconds < 86400) return Math.floor(seconds / 3600) + " h";
    return Math.floor(seconds / 86400) + " d";
  }

  function tellTimes(within) {
    var now = Date.now() / 1000;
    within.querySelectorAll("time[data-at]").forEach(function (time) {
      var at = Number(time.dataset.at);
      var told = ago(now - at);
      if (time.textContent !== told) time.textContent = told;
      var whole = new Date(at * 1000).toLocaleString();
      if (time.title !== whole) time.title = whole;
    });
  }

  var drawer = document.getElementById("drawer");
  var opener = "";

  document.addEventListener("click", function (event) {
    var theme = event.target.closest("#theme");
    if (theme) {
      root.dataset.theme = isDark() ? "light" : "dark";
      try { localStorage.setItem("oao-theme", root.dataset.theme); } catch (error) { /* not remembered */ }
      return;
    }
    var copied = event.target.closest("[data-copy]");
    if (copied && navigator.clipboard) {
      navigator.clipboard.writeText(copied.dataset.copy).then(function () {
        copied.classList.add("copied");
        setTimeout(function () { copied.classList.remove("copied"); }, 1200);
      });
      return;
    }
    if (event.target.closest("[data-close]") || event.target === drawer) drawer.close();
  });

  drawer.addEventListener("close", function () {
    var back = opener && document.getElementById(opener);
    if (back) back.focus();
    document.getElementById("drawer-body").replaceChildren();
  });

  document.body.addEventListener("htmx:afterSwap", function (event) {
    var target = event.detail.target || event.target;
    if (target.id === "drawer-body" && !drawer.open) {
      var by = event.detail.requestConfig && event.detail.requestConfig.elt;
      opener = by ? by.id : "";
      drawer.showModal();
    }
    if (target.id === "notice") {
      if (drawer.open) drawer.close();
      target.scrollIntoView({ block: "nearest" });
    }
    tellTimes(document);
  });
  // What is being clicked or selected stays where it is; what came meanwhile is shown right after.
  var held = new Map();
  var isDown = false;

  function isHeld(region) {
    var selection = getSelection();
    return isDown || (!selection.isCollapsed && region.contains(selection.anchorNode));
  }

  function release() {
    held.forEach(function (markup, region) {
      if (isHeld(region)) return;
      held.delete(region);
      if (region.isConnected) htmx.swap(region, markup, { swapStyle: "innerHTML" });
    });
    tellTimes(document);
  }

  document.body.addEventListener("htmx:sseBeforeMessage", function (event) {
    if (isHeld(event.target)) {
      held.set(event.target, event.detail.data);
      event.preventDefault();
    } else {
      held.delete(event.target);
    }
  });
  document.addEventListener("pointerdown", function () { isDown = true; });
  ["pointerup", "pointercancel"].forEach(function (name) {
    document.addEventListener(name, function () { isDown = false; setTimeout(release, 0); });
  });
  document.addEventListener("selectionchange", function () { if (held.size) release(); });

  document.body.addEventListener("htmx:sseMessage", function () { tellTimes(document); });

  document.body.addEventListener("htmx:sseError", function () { root.classList.add("offline"); });
  document.body.addEventListener("htmx:sseOpen", function () { root.classList.remove("offline"); });

  // Arrow keys walk through the calls.
  document.addEventListener("keydown", function (event) {
    if (event.key !== "ArrowDown" && event.key !== "ArrowUp") return;
    var row = event.target.closest && event.target.matches(".cover") && event.target.closest("tr");
    if (!row) return;
    var all = Array.from(row.closest("table").querySelectorAll(".cover"));
    var next = all[all.indexOf(event.target) + (event.key === "ArrowDown" ? 1 : -1)];
    if (next) { next.focus(); event.preventDefault(); }
  });

  tellTimes(document);
  setInterval(function () { tellTimes(document); }, 5000);
})();
