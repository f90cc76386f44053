// What page.js cannot say, because it never ran. A plain script: modules are not loaded from file: addresses.
"use strict";
(function () {
  var chinese = /^zh/i.test(navigator.language || "");
  function say(english, other) {
    if (document.readyState === "loading") {
      document.addEventListener("DOMContentLoaded", say.bind(null, english, other));
      return;
    }
    var problem = document.getElementById("problem");
    problem.hidden = false;
    problem.textContent = chinese ? other : english;
    document.getElementById("meter").hidden = true;
  }
  function missing(event) {
    if (event.target && event.target.id === "page") {
      say("A script of this page is missing. Copy the whole folder again.", "本页缺少脚本文件，请重新复制整个文件夹。");
    }
  }
  window.addEventListener("error", missing, true); // a script's error does not rise, and comes before DOMContentLoaded
  if (location.protocol === "file:") {
    say(
      "A browser does not run this from a file. Serve the folder: python3 -m http.server, and open http://localhost:8000",
      "浏览器不能直接从文件运行本页。请在此文件夹里执行 python3 -m http.server，再打开 http://localhost:8000"
    );
    window.removeEventListener("error", missing, true);
  } else if (!("noModule" in document.createElement("script"))) {
    say("This browser is too old for this page; please update it.", "浏览器版本过旧，请更新后再打开本页。");
  }
})();
