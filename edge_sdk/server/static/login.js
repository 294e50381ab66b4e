// Exchanges the token for a cookie.

const form = document.getElementById("login");
const problem = document.getElementById("login-problem");

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const token = document.getElementById("token").value.trim();
  const response = await fetch("/login", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ token }),
  });
  if (response.ok) {
    location.replace("/");
    return;
  }
  problem.textContent = (await response.json()).message;
  problem.hidden = false;
});
